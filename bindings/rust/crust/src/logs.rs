use crust_sys as sys;

use crate::event::Event;

/// The level of a record of the log, the most urgent first. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogLevel {
    /// Something is broken for good.
    Error,
    /// Something is wrong, or somebody does what he should not, and the service goes on.
    Warn,
    /// What happens: a handful of records for each session.
    Info,
    /// Each attempt.
    Debug,
}

impl LogLevel {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Error => sys::CRUST_LOG_ERROR,
            Self::Warn => sys::CRUST_LOG_WARN,
            Self::Info => sys::CRUST_LOG_INFO,
            Self::Debug => sys::CRUST_LOG_DEBUG,
        }
    }

    pub(crate) fn from_raw(raw: u8) -> Self {
        match u32::from(raw) {
            sys::CRUST_LOG_ERROR => Self::Error,
            sys::CRUST_LOG_WARN => Self::Warn,
            sys::CRUST_LOG_INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Hands a record on to the crate `log`, when that is wanted.
#[inline]
pub(crate) fn forward(event: Event) -> Event {
    #[cfg(feature = "log")]
    if let Event::Log {
        level, name, attrs, ..
    } = &event
    {
        let level = match level {
            LogLevel::Error => log::Level::Error,
            LogLevel::Warn => log::Level::Warn,
            LogLevel::Info => log::Level::Info,
            LogLevel::Debug => log::Level::Debug,
        };
        log::log!(target: "crust", level, "{name} {attrs}");
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_their_numbers() {
        for level in [
            LogLevel::Error,
            LogLevel::Warn,
            LogLevel::Info,
            LogLevel::Debug,
        ] {
            assert_eq!(LogLevel::from_raw(level.number() as u8), level);
        }
        assert_eq!(LogLevel::from_raw(99), LogLevel::Debug);
        assert!(LogLevel::Error < LogLevel::Debug);
    }
}
