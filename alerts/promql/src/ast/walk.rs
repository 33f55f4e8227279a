//! Going through a tree.

use super::Expr;

impl Expr {
    /// The expressions directly below, in the order of the text.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        let (pair, list): ([Option<&Self>; 2], &[Self]) = match self {
            Self::Number(_) | Self::String(_) | Self::Selector(_) | Self::Variable(_) => ([None, None], &[]),
            Self::Subquery(subquery) => ([Some(&subquery.expr), None], &[]),
            Self::Call(call) => ([None, None], &call.arguments),
            Self::Aggregation(aggregation) => ([aggregation.parameter.as_ref(), Some(&aggregation.expr)], &[]),
            Self::Unary(unary) => ([Some(&unary.expr), None], &[]),
            Self::Paren(paren) => ([Some(&paren.expr), None], &[]),
            Self::Binary(binary) => ([Some(&binary.left), Some(&binary.right)], &[]),
        };
        pair.into_iter().flatten().chain(list)
    }

    /// Calls `visit` with this expression and all below it, parents first, in the order of the text.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        let mut pending = vec![self];
        while let Some(expr) = pending.pop() {
            visit(expr);
            let from = pending.len();
            pending.extend(expr.children());
            pending[from..].reverse();
        }
    }

    /// All selectors in it, in the order of the text.
    pub fn selectors(&self) -> Vec<&super::Selector> {
        let mut found = Vec::new();
        self.walk(&mut |expr| {
            if let Self::Selector(selector) = expr {
                found.push(&**selector);
            }
        });
        found
    }
}
