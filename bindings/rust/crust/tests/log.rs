//! Records of the log, as events and, with the feature, in the crate `log`.

mod common;

use std::time::SystemTime;

use common::{Node, listening};
use crust::{Event, LogLevel};

#[cfg(feature = "log")]
mod taken {
    use std::sync::Mutex;

    /// What the crate `log` has been given.
    pub struct Taken(pub Mutex<Vec<(log::Level, String)>>);

    impl log::Log for Taken {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target() == "crust"
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                let text = record.args().to_string();
                self.0.lock().unwrap().push((record.level(), text));
            }
        }

        fn flush(&self) {}
    }

    pub static TAKEN: Taken = Taken(Mutex::new(Vec::new()));
}

#[test]
fn records_come_as_events_and_go_to_log() {
    #[cfg(feature = "log")]
    {
        log::set_logger(&taken::TAKEN).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    }
    let started = SystemTime::now();
    let mut quiet = Node::new(listening());
    let mut node = Node::new(listening().log_level(LogLevel::Info));
    let endpoint = quiet.endpoint();
    node.service.connect_endpoint(&endpoint, 1).unwrap();
    let (mut connected, mut closed) = (false, false);
    let mut names = Vec::new();
    while let Ok(Some(event)) = node.events.next_timeout(common::PATIENCE) {
        match event {
            Event::Log {
                level,
                time,
                name,
                attrs,
                ..
            } => {
                assert!(level <= LogLevel::Info, "{name} at {level:?}");
                assert!(time.duration_since(started).is_ok(), "{name} at {time:?}");
                assert!(attrs.starts_with('{') && attrs.ends_with('}'), "{attrs}");
                if name == "connected" {
                    let how = r#""how":"dialed""#;
                    assert!(attrs.contains(how), "{attrs}");
                    assert!(attrs.contains(&quiet.id().short()), "{attrs}");
                }
                names.push(name);
            }
            Event::Connected { .. } => {
                connected = true;
                node.service.close();
            }
            Event::Stopped { .. } => {
                closed = true;
                break;
            }
            Event::ConnectFailed { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
    assert!(connected && closed);
    for name in ["service started", "connected", "service stopped"] {
        assert_eq!(names.iter().filter(|n| *n == name).count(), 1, "{names:?}");
    }
    #[cfg(feature = "log")]
    {
        let taken = taken::TAKEN.0.lock().unwrap();
        let texts: Vec<&str> = taken.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts.len(), names.len(), "{texts:?}");
        for (name, (level, text)) in names.iter().zip(taken.iter()) {
            assert!(text.starts_with(&format!("{name} {{")), "{text}");
            assert!(*level <= log::Level::Info);
        }
    }
}
