"""Managing interfaces: commands, links, wg-quick files, back ends and what a platform can do."""
