//! What processes say, as OpenMetrics.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::Found;

/// Labels, and their values.
type Labels = Vec<(&'static str, String)>;

/// Something that there are several of in a process.
struct Kind {
    /// Where they are listed in its document; empty for the process itself.
    list: &'static str,
    /// What families of it are called first.
    prefix: &'static str,
    /// Labels besides `process`, and the fields that have their values; an empty one is the place in the list.
    labels: &'static [(&'static str, &'static str)],
    families: &'static [Family],
}

/// A family: its name, its help, and the field that has its value. What a process does not say has no sample.
struct Family(&'static str, &'static str, &'static str, MetricType);

use MetricType::{Counter, Gauge};

/// Every family of numbers. A name, once here, stays: others have it in their dashboards.
const KINDS: &[Kind] = &[
    Kind {
        list: "",
        prefix: "process",
        labels: &[("command", "process/command"), ("version", "process/pagewire")],
        families: &[Family("uptime_seconds", "Time since the start", "process/uptime", Gauge)],
    },
    Kind {
        list: "ports",
        prefix: "port",
        labels: &[("port", "port"), ("device", "name")],
        families: &[
            Family("rx_packets", "Packets received", "rx_packets", Counter),
            Family("rx_bytes", "Bytes received", "rx_bytes", Counter),
            Family("tx_packets", "Packets sent", "tx_packets", Counter),
            Family("tx_bytes", "Bytes sent", "tx_bytes", Counter),
            Family("rx_missed", "Frames dropped for want of a descriptor", "drops/rx_missed", Counter),
            Family("rx_errors", "Frames that arrived broken", "drops/rx_errors", Counter),
            Family("rx_nombuf", "Times that the pool had no fragment", "drops/rx_nombuf", Counter),
            Family("tx_errors", "Packets that the card could not send", "drops/tx_errors", Counter),
            Family("tx_full", "Packets dropped because the transmit ring was full", "drops/tx_full", Counter),
            Family("link_up", "Whether the link is up", "link_up", Gauge),
        ],
    },
    Kind {
        list: "cores",
        prefix: "core",
        labels: &[("cpu", "cpu")],
        families: &[
            Family("busy_cycles", "Cycles in rounds that moved packets", "busy_cycles", Counter),
            Family("idle_cycles", "Cycles in all other rounds, and asleep", "idle_cycles", Counter),
            Family("packets", "Packets moved", "packets", Counter),
            Family("sleeps", "Times asleep", "sleeps", Counter),
            Family("wake_ups", "Times woken by an interrupt", "wake_ups", Counter),
        ],
    },
    Kind {
        list: "pools",
        prefix: "pool",
        labels: &[("pool", "name"), ("life", "life")],
        families: &[
            Family("fragments", "Fragments that there are", "fragments", Gauge),
            Family("inflight", "Fragments out of the store", "inflight", Gauge),
            Family("oldest_seconds", "For how long a fragment is out at most", "ages/oldest", Gauge),
            Family("alloc_fast", "Allocations served from the owner's cache", "alloc_fast", Counter),
            Family("alloc_slow", "Fragments taken out of the page store", "alloc_slow", Counter),
            Family("alloc_empty", "Allocations that found no fragment", "alloc_empty", Counter),
            Family(
                "recycle_ring",
                "Fragments that came back through the return ring",
                "recycle_ring",
                Counter,
            ),
            Family("stale_generation", "Returns of what was not held", "stale_generation", Counter),
            Family(
                "quota_denied",
                "Packets not handed to a process with its quota full",
                "quota_denied",
                Counter,
            ),
        ],
    },
    Kind {
        list: "streams",
        prefix: "stream",
        labels: &[("stream", "name"), ("number", "")],
        families: &[
            Family("sent_packets", "Packets sent", "sent", Counter),
            Family("sent_bytes", "Bytes sent", "sent_bytes", Counter),
            Family("received_packets", "Packets received, each number once", "received", Counter),
        ],
    },
    Kind {
        list: "cards",
        prefix: "card",
        labels: &[("card", ""), ("socket", "socket")],
        families: &[
            Family("rx_packets", "Packets received from the wire", "rx_packets", Counter),
            Family("tx_packets", "Packets sent to the wire", "tx_packets", Counter),
            Family("clients", "Drivers connected", "clients", Gauge),
            Family("refused_dma", "Accesses to memory that were refused", "refused_dma", Counter),
            Family(
                "malformed_descriptors",
                "Descriptors that make no sense",
                "malformed_descriptors",
                Counter,
            ),
        ],
    },
    Kind {
        list: "taps",
        prefix: "tap",
        labels: &[("tap", "name")],
        families: &[
            Family("copied_packets", "Packets that somebody who watches was shown", "copied", Counter),
            Family("dropped_packets", "Packets that nobody was, while somebody watched", "dropped", Counter),
        ],
    },
    Kind {
        list: "capture",
        prefix: "capture",
        labels: &[],
        families: &[
            Family("received_packets", "Packets received", "received", Counter),
            Family("dropped_packets", "Packets dropped because the file was behind", "dropped", Counter),
        ],
    },
];

/// What processes said, to be encoded.
#[derive(Debug)]
struct Said {
    documents: Vec<Value>,
    silent: usize,
}

/// The whole exposition.
pub(super) fn exposition(found: Found) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("pagewire");
    let Found { documents, silent } = found;
    registry.register_collector(Box::new(Said { documents, silent: silent.len() }));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_eof(&mut text)?;
    Ok(text)
}

impl Collector for Said {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        number(
            &mut encoder,
            "processes",
            "Processes that answer",
            Gauge,
            &[(vec![], self.documents.len() as f64)],
        )?;
        number(
            &mut encoder,
            "processes_silent",
            "Processes that do not",
            Gauge,
            &[(vec![], self.silent as f64)],
        )?;
        for kind in KINDS {
            for Family(name, help, field, of) in kind.families {
                let samples = self.samples(kind, |one| value(at(one, field)));
                number(&mut encoder, &format!("{}_{name}", kind.prefix), help, *of, &samples)?;
            }
        }
        self.counters_of_cards(&mut encoder)?;
        self.bursts(&mut encoder)
    }
}

impl Said {
    /// A sample of everything of a kind, in every process.
    fn samples<T>(&self, kind: &Kind, value: impl Fn(&Value) -> Option<T>) -> Vec<(Labels, T)> {
        let mut samples = Vec::new();
        for document in &self.documents {
            let all = match &document[kind.list] {
                _ if kind.list.is_empty() => std::slice::from_ref(document),
                Value::Array(list) => list,
                one @ Value::Object(_) => std::slice::from_ref(one),
                _ => &[],
            };
            for (place, one) in all.iter().enumerate() {
                let Some(value) = value(one) else { continue };
                let label = |&(name, field): &(&'static str, &str)| match (field, at(one, field)) {
                    ("", _) => (name, place.to_string()),
                    (_, Value::String(text)) => (name, text.clone()),
                    (_, other) => (name, other.to_string()),
                };
                let process = ("process", document["process"]["id"].as_str().unwrap_or("?").to_owned());
                samples
                    .push((std::iter::once(process).chain(kind.labels.iter().map(label)).collect(), value));
            }
        }
        samples
    }

    /// Named counters, which differ from card to card.
    fn counters_of_cards(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ports = KINDS.iter().filter(|kind| kind.list == "ports");
        let each = ports.flat_map(|kind| self.samples(kind, |port| port["xstats"].as_object().cloned()));
        let samples: Vec<(Labels, f64)> = each
            .flat_map(|(labels, counters)| {
                let sample = move |(name, count): (String, Value)| {
                    let name = std::iter::once(("counter", name));
                    Some((labels.iter().cloned().chain(name).collect(), value(&count)?))
                };
                counters.into_iter().filter_map(sample).collect::<Vec<_>>()
            })
            .collect();
        number(encoder, "port_xstat", "A named counter of the card", Counter, &samples)
    }

    /// How much polls found.
    fn bursts(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let cores = KINDS.iter().filter(|kind| kind.list == "cores");
        let samples = cores.flat_map(|kind| {
            self.samples(kind, |core| {
                let list = |name: &str| -> Option<Vec<u64>> {
                    core["bursts"][name].as_array()?.iter().map(Value::as_u64).collect()
                };
                let (from, polls) = (list("from")?, list("polls")?);
                // Up to the next, which it does not reach.
                let ends = from.iter().skip(1).map(|from| *from as f64 - 1.0).chain([f64::INFINITY]);
                Some((core["packets"].as_f64()?, ends.zip(polls).collect::<Vec<_>>()))
            })
        });
        let mut family = encoder.encode_descriptor(
            "core_burst_packets",
            "Packets that a poll found",
            None,
            MetricType::Histogram,
        )?;
        for (labels, (packets, buckets)) in samples {
            let polls = buckets.iter().map(|(_, polls)| polls).sum();
            family.encode_family(&labels)?.encode_histogram::<Labels>(packets, polls, &buckets, None)?;
        }
        Ok(())
    }
}

/// A family of numbers. One without samples is left out.
fn number(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    of: MetricType,
    samples: &[(Labels, f64)],
) -> Result<(), std::fmt::Error> {
    if samples.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, of)?;
    let write = |sample: MetricEncoder<'_>, value| match of {
        Counter => ConstCounter::new(value).encode(sample),
        _ => ConstGauge::new(value).encode(sample),
    };
    for (labels, value) in samples {
        match labels.is_empty() {
            true => return write(family, *value),
            false => write(family.encode_family(labels)?, *value)?,
        }
    }
    Ok(())
}

/// What is at a path of names.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, name| &value[name])
}

/// A number, or whether.
fn value(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|is| f64::from(u8::from(is))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(documents: Vec<Value>) -> String {
        exposition(Found { documents, silent: vec!["one".into()] }).expect("it is text")
    }

    #[test]
    fn families_have_the_names_and_labels_that_were_promised() {
        let port = json!({
            "port": 0, "name": "a \"card\"\\", "rx_packets": 12, "link_up": true, "drops": { "rx_missed": 3 },
            "xstats": { "rx_good": 12, "odd": "x" },
        });
        let core = json!({ "cpu": 2, "busy_cycles": 7, "packets": 5, "bursts": { "from": [0, 1, 2], "polls": [4, 3, 1] } });
        let process = json!({ "id": "l2fwd-7", "command": "l2fwd", "pagewire": "0.1.0", "uptime": 1.5 });
        let said = text(vec![json!({ "process": process, "ports": [port], "cores": [core] })]);
        for line in [
            "# TYPE pagewire_port_rx_packets counter",
            r#"pagewire_port_rx_packets_total{process="l2fwd-7",port="0",device="a \"card\"\\"} 12.0"#,
            r#"pagewire_port_rx_missed_total{process="l2fwd-7",port="0",device="a \"card\"\\"} 3.0"#,
            r#"pagewire_port_link_up{process="l2fwd-7",port="0",device="a \"card\"\\"} 1.0"#,
            r#"pagewire_port_xstat_total{process="l2fwd-7",port="0",device="a \"card\"\\",counter="rx_good"} 12.0"#,
            r#"pagewire_process_uptime_seconds{process="l2fwd-7",command="l2fwd",version="0.1.0"} 1.5"#,
            r#"pagewire_core_burst_packets_bucket{le="0.0",process="l2fwd-7",cpu="2"} 4"#,
            r#"pagewire_core_burst_packets_bucket{le="1.0",process="l2fwd-7",cpu="2"} 7"#,
            r#"pagewire_core_burst_packets_bucket{le="+Inf",process="l2fwd-7",cpu="2"} 8"#,
            r#"pagewire_core_burst_packets_sum{process="l2fwd-7",cpu="2"} 5.0"#,
            "pagewire_processes 1.0",
            "pagewire_processes_silent 1.0",
        ] {
            assert!(said.lines().any(|other| other == line), "no {line} in\n{said}");
        }
        assert!(said.ends_with("\n# EOF\n") && !said.contains("tx_packets"), "{said}");
    }

    #[test]
    fn nothing_that_a_process_says_breaks_it() {
        for odd in [
            json!(null),
            json!([1]),
            json!({ "ports": [3, {}, null], "cores": [{ "bursts": 1 }], "pools": {} }),
        ] {
            assert!(text(vec![odd]).ends_with("# EOF\n"));
        }
        let twice = json!({ "process": { "id": "x\ny" }, "ports": [{ "port": [1], "rx_packets": -1.5 }] });
        assert!(text(vec![twice]).contains(r#"{process="x\ny",port="[1]",device="null"} -1.5"#));
    }
}
