# A gateway in a container of its own:
#
#   docker build -t wgmp .
#   docker run --cap-add NET_ADMIN --device /dev/net/tun -p 51820:51820/udp \
#       -v /etc/wireguard:/etc/wireguard:ro wgmp
#
# Its interface lives in the container's network namespace; with `--network host` it is the host's.

# With Rust the native fast path is built, for the Python of the same Debian.
FROM rust:1-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python3 -m venv /opt/wgmp && /opt/wgmp/bin/pip install --no-cache-dir /src

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends iproute2 nftables python3 wireguard-tools \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/wgmp /opt/wgmp
ENV PATH=/opt/wgmp/bin:$PATH WGMP_CONFIG=/etc/wireguard/wg0.conf
EXPOSE 51820/udp
# A gateway whose supervisor does not answer is not healthy; roles that die or hang it replaces.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["sh", "-c", "wgmp stats --json >/dev/null"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["wgmp", "supervise", "--foreground"]
CMD ["wg0"]
