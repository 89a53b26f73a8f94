//! Decimals by their digits, never through a float.

/// The digits of a DECIMAL(38, scale) at most.
const DIGITS: usize = 38;

/// `digits` times ten to the power of `scale`; `None` when it is no JSON number, or cannot be written with so
/// many digits behind the point without losing some.
pub(super) fn unscaled(digits: &str, scale: u8) -> Option<i128> {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (digits, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: String = [whole, fraction].concat();
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // So many zeros have to be appended, or cut off.
    let shift = i64::from(scale)
        .checked_add(exponent)?
        .checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let shifted = match usize::try_from(shift) {
        Ok(zeros) if zeros <= DIGITS => format!("{significant}{}", "0".repeat(zeros)),
        Ok(_) => return None,
        Err(_) => {
            let cut = usize::try_from(shift.unsigned_abs()).ok()?;
            let kept = significant.len().checked_sub(cut).filter(|n| *n > 0)?;
            let (kept, lost) = significant.split_at(kept);
            lost.bytes().all(|b| b == b'0').then(|| kept.to_owned())?
        }
    };
    if shifted.len() > DIGITS {
        return None;
    }
    let number: i128 = shifted.parse().ok()?;
    Some(if negative { -number } else { number })
}

/// The digits of a number with `scale` of them behind the point.
pub(super) fn digits(unscaled: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let all = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = all.split_at(all.len() - scale);
    match fraction {
        "" => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_kept_or_refused() {
        let shown = |text: &str, scale| unscaled(text, scale).map(|n| digits(n, scale));
        for (text, scale, expected) in [
            ("80000.50", 2, Some("80000.50")),
            ("80000.5", 2, Some("80000.50")),
            ("80000.500", 2, Some("80000.50")),
            ("80000.505", 2, None),
            ("0.001", 2, None),
            ("0", 2, Some("0.00")),
            ("-0.05", 2, Some("-0.05")),
            ("1.5e3", 0, Some("1500")),
            ("15e-1", 2, Some("1.50")),
            ("1e40", 0, None),
            ("1e-99999999999999999999", 0, None),
            (
                "99999999999999999999999999999999999999",
                0,
                Some("99999999999999999999999999999999999999"),
            ),
            ("100000000000000000000000000000000000000", 0, None),
            ("x", 0, None),
        ] {
            assert_eq!(shown(text, scale).as_deref(), expected, "{text} {scale}");
        }
    }
}
