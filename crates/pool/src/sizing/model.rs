//! The size for a hit rate.

use std::time::Duration;

/// Below this many claims per second, one a day, there is no demand to speak of.
pub(super) const NO_DEMAND: f64 = 1.0 / 86_400.0;

/// The smallest size at which the share `hit_rate` of claims finds a warm sandbox, at most `most`.
///
/// A claim finds one when fewer than the size were claimed within the lead time before it, since those are being
/// replaced. Counts within a lead time are taken as negative binomial with mean `rate × lead` and variance
/// `dispersion` times that (Poisson at 1). Claims do not see the average moment but a busier one, for bursts hold
/// more claims than lulls do: seen from a claim, the other claims are negative binomial with one more success.
#[must_use]
pub fn required(rate: f64, dispersion: f64, lead: Duration, hit_rate: f64, most: u32) -> u32 {
    let mean = rate * lead.as_secs_f64();
    if !mean.is_finite() || rate < NO_DEMAND {
        return 0;
    }
    // Logarithms, since the chance of no claim at all underflows with a mean of some hundreds.
    let bursty = dispersion > 1.001 && mean > 0.0;
    let (mut log_chance, shape, failure) = if bursty {
        let shape = mean / (dispersion - 1.0) + 1.0;
        (-shape * dispersion.ln(), shape, (dispersion - 1.0) / dispersion)
    } else {
        (-mean, 0.0, 0.0)
    };
    let mut sum = 0.0;
    for others in 0..most {
        sum += log_chance.exp();
        if sum >= hit_rate {
            return others + 1;
        }
        let next = f64::from(others) + 1.0;
        let ratio = if bursty { (f64::from(others) + shape) / next * failure } else { mean / next };
        log_chance += ratio.ln();
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mean: f64, dispersion: f64, hit_rate: f64) -> u32 {
        required(mean, dispersion, Duration::from_secs(1), hit_rate, 10_000)
    }

    #[test]
    fn chance_gives_the_quantiles_of_poisson() {
        // P(X ≤ 4) = 0.9963, P(X ≤ 3) = 0.9810 at mean 1; P(X ≤ 18) = 0.9928 and P(X ≤ 17) = 0.9857 at mean 10.
        assert_eq!(at(1.0, 1.0, 0.99), 5);
        assert_eq!(at(10.0, 1.0, 0.99), 19);
        assert_eq!(at(0.0, 1.0, 0.99), 0);
        assert_eq!(at(1e-3, 1.0, 0.99), 1);
        let many = at(2000.0, 1.0, 0.99);
        assert!((2095..2115).contains(&many), "{many}");
    }

    #[test]
    fn bursts_need_more() {
        // Shape 1 + 1 and failure 1/2: P(X ≤ 7) = 1 − 10/2^9 = 0.9805, P(X ≤ 8) = 1 − 11/2^10 = 0.9893, then 0.9941.
        assert_eq!(at(1.0, 2.0, 0.99), 10);
        assert!(at(1.0, 10.0, 0.99) > at(1.0, 2.0, 0.99));
        assert!(at(5000.0, 3.0, 0.9999) < 10_000);
    }

    #[test]
    fn absurd_values_are_bounded() {
        assert_eq!(at(f64::NAN, 1.0, 0.99), 0);
        assert_eq!(at(f64::INFINITY, 1.0, 0.99), 0);
        assert_eq!(at(1e12, 1e9, 0.99), 10_000);
        assert_eq!(required(5.0, 1.0, Duration::MAX, 0.99, 7), 7);
    }
}
