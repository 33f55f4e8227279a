//! Counts as rates, as charts show them. It draws nothing.

/// Counts per interval as rates: `(end of interval, its length, count)` becomes points of at least one second each, and of
/// at most 180 in all.
pub fn per_second(intervals: impl Iterator<Item = (f64, f64, f64)>) -> Vec<(f64, f64)> {
    let intervals: Vec<(f64, f64, f64)> = intervals.collect();
    let end = intervals.last().map_or(0.0, |i| i.0);
    let width = (end / 180.0).max(1.0);
    let mut points = Vec::new();
    let (mut time, mut count) = (0.0, 0.0);
    for (at, length, n) in intervals {
        time += length;
        count += n;
        if time >= width - 1e-6 {
            points.push((at - time / 2.0, count / time));
            (time, count) = (0.0, 0.0);
        }
    }
    if time > width / 2.0 {
        points.push((end - time / 2.0, count / time));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_in_whole_seconds_at_least() {
        let quarter = (1..=8).map(|i| (f64::from(i) * 0.25, 0.25, 5.0));
        assert_eq!(per_second(quarter), [(0.5, 20.0), (1.5, 20.0)]);
    }
}
