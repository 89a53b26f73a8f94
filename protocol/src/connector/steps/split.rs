//! `split_on`: a stretch of days that overflows is covered in halves that share no day.

use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::Value;

use super::{StepError, Window};
use crate::connector::CompileError;
use crate::connector::body::JsonPath;
use crate::spec::SplitOn;

/// A compiled `split_on:`.
#[derive(Debug)]
pub(super) struct Splitter {
    overflow: JsonPath,
    pub(super) from: String,
    to: String,
    days: u32,
}

impl Splitter {
    pub(super) fn compile(split: &SplitOn) -> Result<Self, CompileError> {
        Ok(Splitter {
            overflow: JsonPath::compile(&split.overflow)?,
            from: split.from.clone(),
            to: split.to.clone(),
            days: split.days,
        })
    }

    /// The parameters of a stretch.
    pub(super) fn set(&self, window: &Window) -> [(String, Value); 2] {
        [
            (self.from.clone(), window.from.to_string().into()),
            (self.to.clone(), window.to.to_string().into()),
        ]
    }

    /// Whether the answer says that there is more than can be paged.
    pub(super) fn overflows(&self, body: &Value) -> bool {
        match self.overflow.first(body) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Number(n)) => n.as_f64() != Some(0.0),
            Some(Value::String(text)) => !matches!(text.as_str(), "" | "false" | "0" | "N" | "n"),
            Some(_) => true,
        }
    }

    /// The whole stretch, from the day that the request began with.
    pub(super) fn whole(&self, first: &str) -> Result<Window, StepError> {
        let no_day = || StepError::NoFirstDay(format!("{} is no date", self.from));
        let from: Date = first
            .get(..10)
            .and_then(|day| day.parse().ok())
            .ok_or_else(no_day)?;
        let to = from
            .checked_add(i64::from(self.days).days())
            .map_err(|_| no_day())?;
        Ok(Window { from, to })
    }
}

/// Two halves of a stretch, the first one no shorter.
pub(super) fn halves(window: Window) -> Result<(Window, Window), StepError> {
    let days = (window.to - window.from).get_days();
    if days < 1 {
        return Err(StepError::Overflow(window.from));
    }
    let middle = window.from + i64::from(days / 2).days();
    let first = Window {
        from: window.from,
        to: middle,
    };
    let second = Window {
        from: middle + 1.day(),
        to: window.to,
    };
    Ok((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Halved until single days, every day comes once, in order.
        #[test]
        fn halves_cover_every_day_once(days in 0i64..400) {
            let from: Date = "2026-11-27".parse().expect("a date");
            let mut open = vec![Window { from, to: from + days.days() }];
            let mut covered = Vec::new();
            while let Some(window) = open.pop() {
                match halves(window) {
                    Ok((first, second)) => open.extend([second, first]),
                    Err(error) => {
                        prop_assert_eq!(error, StepError::Overflow(window.from));
                        covered.push(window.from);
                    }
                }
            }
            let every: Vec<Date> = (0..=days).map(|n| from + n.days()).collect();
            prop_assert_eq!(covered, every);
        }
    }
}
