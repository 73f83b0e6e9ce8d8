//! Bars of block characters.

/// Parts of a character, from an eighth to seven.
const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// A bar for a share from 0 to 1, to an eighth of a character, filled up with blanks to `width` characters. A full
/// bar means all, and an empty one none: what is between shows at least an eighth, and lacks at least one.
#[expect(clippy::cast_precision_loss, reason = "bars are short")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bars are short, and not negative"
)]
pub(crate) fn bar(share: f64, width: usize) -> String {
    let all = width * 8;
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let mut eighths = (share * all as f64).round() as usize;
    if share > 0.0 && share < 1.0 && all > 1 {
        eighths = eighths.clamp(1, all - 1);
    }
    let part = (eighths % 8).checked_sub(1).map(|part| PARTS[part]);
    let drawn: String = std::iter::repeat_n('█', eighths / 8).chain(part).collect();
    format!("{drawn:width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_true_to_an_eighth_of_a_character() {
        for (share, text) in [
            (0.0, "    "),
            (0.25, "█   "),
            (0.5, "██  "),
            (0.53125, "██▏ "),
            (0.96875, "███▉"),
            (1.0, "████"),
            (0.0001, "▏   "),
            (0.9999, "███▉"),
            (-1.0, "    "),
            (7.0, "████"),
            (f64::NAN, "    "),
        ] {
            assert_eq!(bar(share, 4), text, "{share}");
        }
        assert_eq!(bar(0.5, 0), "");
    }
}
