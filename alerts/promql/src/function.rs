//! The functions of PromQL with the types of what they take and return. What they compute is nobody's business here.

use crate::value::ValueType::{self, Matrix, Scalar, String, Vector};

/// A function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// What it is called.
    pub name: &'static str,
    /// The types of its arguments. Where there may be more or fewer, the last type stands for all further ones.
    pub arguments: &'static [ValueType],
    /// How many arguments there may be.
    pub arity: Arity,
    /// What it returns.
    pub returns: ValueType,
    /// Whether it needs a feature flag of Prometheus.
    pub experimental: bool,
}

/// How many arguments a function takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// As many as there are types.
    Exact,
    /// One less than there are types, and up to so many more.
    Optional(u8),
    /// One less than there are types, and any number more.
    Any,
}

/// Beginnings of functions that MetricsQL has and PromQL has not.
const METRICSQL: &[&str] = &[
    "any",
    "bottomk_",
    "default_rollup",
    "distinct",
    "histogram_avg_over_time",
    "increase_pure",
    "increase_prometheus",
    "interpolate",
    "keep_last_value",
    "label_copy",
    "label_del",
    "label_keep",
    "label_lowercase",
    "label_map",
    "label_match",
    "label_mismatch",
    "label_move",
    "label_set",
    "label_transform",
    "label_uppercase",
    "label_value",
    "lag",
    "lifetime",
    "limit_offset",
    "median",
    "now",
    "outliers_",
    "outliersk",
    "prometheus_buckets",
    "quantiles",
    "range_",
    "rate_over_sum",
    "remove_resets",
    "rollup",
    "running_",
    "share_",
    "smooth_exponential",
    "topk_",
    "union",
    "zscore",
    "WITH",
];

/// Whether a function that PromQL does not have is one of MetricsQL: who writes it asks another server.
pub(crate) fn is_of_metricsql(name: &str) -> bool {
    METRICSQL.iter().any(|known| {
        let whole = !known.ends_with('_');
        name.strip_prefix(known)
            .is_some_and(|rest| !whole || rest.is_empty() || rest.starts_with('_'))
    })
}

impl Function {
    /// The function called `name`. Case matters.
    pub fn named(name: &str) -> Option<&'static Self> {
        let found = FUNCTIONS.binary_search_by(|function| function.name.cmp(name));
        found.ok().map(|index| &FUNCTIONS[index])
    }

    /// The least number of arguments.
    pub const fn least(&self) -> usize {
        match self.arity {
            Arity::Exact => self.arguments.len(),
            Arity::Optional(_) | Arity::Any => self.arguments.len() - 1,
        }
    }

    /// The greatest number of arguments, where there is one.
    pub const fn most(&self) -> Option<usize> {
        match self.arity {
            Arity::Exact => Some(self.arguments.len()),
            Arity::Optional(more) => Some(self.arguments.len() - 1 + more as usize),
            Arity::Any => None,
        }
    }

    /// The type of the argument at `index`.
    pub fn argument(&self, index: usize) -> Option<ValueType> {
        match self.arity {
            Arity::Exact => self.arguments.get(index).copied(),
            _ => self.arguments.get(index).or(self.arguments.last()).copied(),
        }
    }
}

const fn stable(name: &'static str, arguments: &'static [ValueType], returns: ValueType) -> Function {
    Function {
        name,
        arguments,
        arity: Arity::Exact,
        returns,
        experimental: false,
    }
}

const fn experimental(name: &'static str, arguments: &'static [ValueType], returns: ValueType) -> Function {
    Function {
        experimental: true,
        ..stable(name, arguments, returns)
    }
}

const fn with(arity: Arity, function: Function) -> Function {
    Function { arity, ..function }
}

/// All functions, by name.
pub static FUNCTIONS: &[Function] = &[
    stable("abs", &[Vector], Vector),
    stable("absent", &[Vector], Vector),
    stable("absent_over_time", &[Matrix], Vector),
    stable("acos", &[Vector], Vector),
    stable("acosh", &[Vector], Vector),
    stable("asin", &[Vector], Vector),
    stable("asinh", &[Vector], Vector),
    stable("atan", &[Vector], Vector),
    stable("atanh", &[Vector], Vector),
    stable("avg_over_time", &[Matrix], Vector),
    stable("ceil", &[Vector], Vector),
    stable("changes", &[Matrix], Vector),
    stable("clamp", &[Vector, Scalar, Scalar], Vector),
    stable("clamp_max", &[Vector, Scalar], Vector),
    stable("clamp_min", &[Vector, Scalar], Vector),
    stable("cos", &[Vector], Vector),
    stable("cosh", &[Vector], Vector),
    stable("count_over_time", &[Matrix], Vector),
    with(Arity::Optional(1), stable("day_of_month", &[Vector], Vector)),
    with(Arity::Optional(1), stable("day_of_week", &[Vector], Vector)),
    with(Arity::Optional(1), stable("day_of_year", &[Vector], Vector)),
    with(Arity::Optional(1), stable("days_in_month", &[Vector], Vector)),
    stable("deg", &[Vector], Vector),
    stable("delta", &[Matrix], Vector),
    stable("deriv", &[Matrix], Vector),
    experimental("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Vector),
    experimental("end", &[], Scalar),
    stable("exp", &[Vector], Vector),
    stable("first_over_time", &[Matrix], Vector),
    stable("floor", &[Vector], Vector),
    stable("histogram_avg", &[Vector], Vector),
    stable("histogram_count", &[Vector], Vector),
    stable("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    stable("histogram_quantile", &[Scalar, Vector], Vector),
    with(
        Arity::Optional(9),
        experimental("histogram_quantiles", &[Vector, String, Scalar, Scalar], Vector),
    ),
    stable("histogram_stddev", &[Vector], Vector),
    stable("histogram_stdvar", &[Vector], Vector),
    stable("histogram_sum", &[Vector], Vector),
    with(Arity::Optional(1), stable("hour", &[Vector], Vector)),
    stable("idelta", &[Matrix], Vector),
    stable("increase", &[Matrix], Vector),
    with(Arity::Optional(1), experimental("info", &[Vector, Vector], Vector)),
    stable("irate", &[Matrix], Vector),
    with(
        Arity::Any,
        stable("label_join", &[Vector, String, String, String], Vector),
    ),
    stable("label_replace", &[Vector, String, String, String, String], Vector),
    stable("last_over_time", &[Matrix], Vector),
    stable("ln", &[Vector], Vector),
    stable("log10", &[Vector], Vector),
    stable("log2", &[Vector], Vector),
    experimental("mad_over_time", &[Matrix], Vector),
    experimental("max_of", &[Scalar, Scalar], Scalar),
    stable("max_over_time", &[Matrix], Vector),
    experimental("min_of", &[Scalar, Scalar], Scalar),
    stable("min_over_time", &[Matrix], Vector),
    with(Arity::Optional(1), stable("minute", &[Vector], Vector)),
    with(Arity::Optional(1), stable("month", &[Vector], Vector)),
    stable("pi", &[], Scalar),
    stable("predict_linear", &[Matrix, Scalar], Vector),
    stable("present_over_time", &[Matrix], Vector),
    stable("quantile_over_time", &[Scalar, Matrix], Vector),
    stable("rad", &[Vector], Vector),
    experimental("range", &[], Scalar),
    stable("rate", &[Matrix], Vector),
    stable("resets", &[Matrix], Vector),
    with(Arity::Optional(1), stable("round", &[Vector, Scalar], Vector)),
    stable("scalar", &[Vector], Scalar),
    stable("sgn", &[Vector], Vector),
    stable("sin", &[Vector], Vector),
    stable("sinh", &[Vector], Vector),
    stable("sort", &[Vector], Vector),
    with(Arity::Any, experimental("sort_by_label", &[Vector, String], Vector)),
    with(
        Arity::Any,
        experimental("sort_by_label_desc", &[Vector, String], Vector),
    ),
    stable("sort_desc", &[Vector], Vector),
    stable("sqrt", &[Vector], Vector),
    experimental("start", &[], Scalar),
    experimental("start_timestamp", &[Vector], Vector),
    stable("stddev_over_time", &[Matrix], Vector),
    stable("stdvar_over_time", &[Matrix], Vector),
    experimental("step", &[], Scalar),
    stable("sum_over_time", &[Matrix], Vector),
    stable("tan", &[Vector], Vector),
    stable("tanh", &[Vector], Vector),
    stable("time", &[], Scalar),
    stable("timestamp", &[Vector], Vector),
    experimental("ts_of_first_over_time", &[Matrix], Vector),
    experimental("ts_of_last_over_time", &[Matrix], Vector),
    experimental("ts_of_max_over_time", &[Matrix], Vector),
    experimental("ts_of_min_over_time", &[Matrix], Vector),
    stable("vector", &[Scalar], Vector),
    with(Arity::Optional(1), stable("year", &[Vector], Vector)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_name() {
        assert!(FUNCTIONS.is_sorted_by_key(|function| function.name));
        for function in FUNCTIONS {
            assert_eq!(Function::named(function.name), Some(function));
        }
        assert_eq!(Function::named("RATE"), None);
    }

    #[test]
    fn the_numbers_of_arguments_follow_from_types_and_arity() {
        let numbers = |name| Function::named(name).map(|function| (function.least(), function.most()));
        assert_eq!(numbers("time"), Some((0, Some(0))));
        assert_eq!(numbers("rate"), Some((1, Some(1))));
        assert_eq!(numbers("round"), Some((1, Some(2))));
        assert_eq!(numbers("hour"), Some((0, Some(1))));
        assert_eq!(numbers("label_join"), Some((3, None)));
    }
}
