//! Internet checksums (RFC 1071).
//!
//! Words are summed in host order and swapped at the end: one's complement addition does not care.

/// The folded sum of the big-endian words of `data`; an odd length is padded with zero.
#[inline]
pub fn sum(data: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if data.len() >= 128 && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2, as was just asked.
        return unsafe { sum_avx2(data) };
    }
    sum_words(data)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(data: &[u8]) -> u32 {
    sum_words(data)
}

#[inline(always)]
fn sum_words(data: &[u8]) -> u32 {
    // 32-bit words into 64-bit lanes: no carries to look after, and the compiler vectorizes it.
    let (blocks, rest) = data.as_chunks::<64>();
    let mut lanes = [0u64; 16];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let (words, odd) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u32::from(u16::from_be(fold64(total)))
}

fn fold64(total: u64) -> u16 {
    let total = (total & 0xFFFF_FFFF) + (total >> 32);
    let total = (total & 0xFFFF) + (total >> 16 & 0xFFFF) + (total >> 32);
    let total = (total & 0xFFFF) + (total >> 16);
    ((total & 0xFFFF) + (total >> 16)) as u16
}

/// Fold a sum of sums to 16 bits.
#[inline]
pub fn fold(total: u32) -> u16 {
    let total = (total & 0xFFFF) + (total >> 16);
    ((total & 0xFFFF) + (total >> 16)) as u16
}

/// The value of the checksum field for a sum over all that it covers.
#[inline]
pub fn finish(total: u32) -> u16 {
    !fold(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plainly(data: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in data.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xFFFF) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn every_length_and_alignment_sums_as_word_by_word() {
        let data: Vec<u8> = (0..3000u32).map(|n| ((n * 37) >> 3) as u8 | 1).collect();
        for start in 0..3 {
            for end in start..data.len() {
                let piece = &data[start..end];
                assert_eq!(sum(piece) as u16, plainly(piece), "{start}..{end}");
            }
        }
    }
}
