//! Tests of the layout: nothing but white space is added, and where it is added is where a reader looks for it.

use proptest::prelude::*;

use super::*;

#[test]
fn a_short_expression_stays_on_its_line() {
    for expression in ["up == 0", "sum by (job) (rate(x[5m]))", r#"x{a="  b ) or ("}"#] {
        assert_eq!(lines(expression), expression);
    }
}

#[test]
fn it_is_broken_at_its_loosest_operator_and_then_inside_of_brackets() {
    let metric = "a_rather_long_name_of_a_metric_total";
    let expression = format!(
        "sum(rate({metric}{{job=\"orders\", code=~\"5..\"}}[5m]) or rate(other_{metric}[5m])) / on (job) group_left (team) \
         (sum(rate({metric}[5m])) > 0) > 0.05 and x >= 5"
    );
    let expected = "\
sum(
  rate(a_rather_long_name_of_a_metric_total{job=\"orders\", code=~\"5..\"}[5m])
  or rate(other_a_rather_long_name_of_a_metric_total[5m])
)
/ on (job) group_left (team) (sum(rate(a_rather_long_name_of_a_metric_total[5m])) > 0)
> 0.05
and x >= 5";
    assert_eq!(lines(&expression), expected);
}

fn bare(text: &str) -> String {
    text.split_whitespace().collect()
}

proptest! {
    #[test]
    fn only_white_space_is_added_and_a_second_time_changes_nothing(
        words in prop::collection::vec(
            prop_oneof![
                Just("or".to_owned()), Just("and".to_owned()), Just(" / on (job)".to_owned()), Just("> bool".to_owned()),
                "[a-z_]{5,30}", "sum by \\([a-z]\\) \\([a-z]{3,40}\\)", "[a-z]{3}\\{x=\"[a-z (){}]{0,12}\"\\}\\[5m\\]",
            ],
            1..30,
        ),
    ) {
        let text = words.join(" ");
        let laid = lines(&text);
        prop_assert_eq!(bare(&laid), bare(&text));
        prop_assert_eq!(lines(&laid), laid);
    }

    #[test]
    fn nothing_makes_it_fail(text in "[\\PC\n]{0,300}") {
        let laid = lines(&text);
        prop_assert_eq!(bare(&laid), bare(&text));
    }
}

#[test]
fn brackets_without_end_are_only_long() {
    let deep = "(".repeat(100_000);
    assert_eq!(bare(&lines(&deep)), deep);
    let deep = format!("{}x{}", "f(".repeat(20_000), ")".repeat(20_000));
    assert_eq!(bare(&lines(&deep)), deep);
}
