//! Operators, aggregators and how they are written.

use std::fmt;

/// Defines an enum whose variants are words or signs of the language.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// How it is written.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text())
            }
        }
    };
}

words! {
    /// An operator between two expressions.
    BinaryOp {
        /// `+`
        Add = "+",
        /// `-`
        Sub = "-",
        /// `*`
        Mul = "*",
        /// `/`
        Div = "/",
        /// `%`
        Mod = "%",
        /// `^`
        Pow = "^",
        /// `atan2`
        Atan2 = "atan2",
        /// `==`
        Equal = "==",
        /// `!=`
        NotEqual = "!=",
        /// `>`
        Greater = ">",
        /// `<`
        Less = "<",
        /// `>=`
        GreaterOrEqual = ">=",
        /// `<=`
        LessOrEqual = "<=",
        /// `</`: observations of a native histogram above a bound are taken out.
        TrimUpper = "</",
        /// `>/`: observations of a native histogram below a bound are taken out.
        TrimLower = ">/",
        /// `and`
        And = "and",
        /// `or`
        Or = "or",
        /// `unless`
        Unless = "unless",
    }
}

words! {
    /// What makes one value of many series.
    Aggregator {
        /// The sum.
        Sum = "sum",
        /// The mean.
        Avg = "avg",
        /// The number of series.
        Count = "count",
        /// The least.
        Min = "min",
        /// The greatest.
        Max = "max",
        /// 1, whatever the values are.
        Group = "group",
        /// The standard deviation.
        Stddev = "stddev",
        /// The variance.
        Stdvar = "stdvar",
        /// The k greatest, with all their labels.
        Topk = "topk",
        /// The k least, with all their labels.
        Bottomk = "bottomk",
        /// How often each value occurs.
        CountValues = "count_values",
        /// A quantile over the series.
        Quantile = "quantile",
        /// Any k series. Experimental.
        Limitk = "limitk",
        /// A share of the series. Experimental.
        LimitRatio = "limit_ratio",
    }
}

words! {
    /// How the value of a label is compared.
    MatchOp {
        /// `=`
        Equal = "=",
        /// `!=`
        NotEqual = "!=",
        /// `=~`
        Regex = "=~",
        /// `!~`
        NotRegex = "!~",
    }
}

words! {
    /// A sign.
    Sign {
        /// `+`
        Plus = "+",
        /// `-`
        Minus = "-",
    }
}

impl BinaryOp {
    /// How strongly it binds: the greater, the stronger.
    pub const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Equal
            | Self::NotEqual
            | Self::Greater
            | Self::Less
            | Self::GreaterOrEqual
            | Self::LessOrEqual
            | Self::TrimUpper
            | Self::TrimLower => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }

    /// Whether it compares, so that `bool` may follow.
    pub const fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal | Self::NotEqual | Self::Greater | Self::Less | Self::GreaterOrEqual | Self::LessOrEqual
        )
    }

    /// Whether it is `and`, `or` or `unless`.
    pub const fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Whether it computes a new value of two.
    pub const fn is_arithmetic(self) -> bool {
        !self.is_comparison() && !self.is_set()
    }
}

impl Aggregator {
    /// Whether a parameter stands before the vector.
    pub const fn has_parameter(self) -> bool {
        self.is_selection() || matches!(self, Self::CountValues | Self::Quantile)
    }

    /// Whether it needs a feature flag of Prometheus.
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::Limitk | Self::LimitRatio)
    }

    /// Whether it takes some of the series as they are, with all their labels, instead of computing new ones.
    pub const fn is_selection(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::Limitk | Self::LimitRatio)
    }
}

impl MatchOp {
    /// Whether the value is a regular expression.
    pub const fn is_regex(self) -> bool {
        matches!(self, Self::Regex | Self::NotRegex)
    }

    /// Whether it holds for what does not match.
    pub const fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotRegex)
    }
}

impl Sign {
    /// The number with this sign before it.
    pub fn apply(self, value: f64) -> f64 {
        match self {
            Self::Plus => value,
            Self::Minus => -value,
        }
    }
}
