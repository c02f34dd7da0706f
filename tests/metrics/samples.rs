//! The samples in the text of a scrape.

use std::collections::{BTreeMap, BTreeSet};

use vestibule::{MetricsFormat, Running};

pub(crate) struct Samples(Vec<Sample>);

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Samples {
    pub(crate) fn of(running: &Running) -> Self {
        Self::read(&running.metrics(MetricsFormat::OpenMetrics))
    }

    /// No label value of these tests contains a comma or a quote.
    pub(crate) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}').split(',');
            let labels = labels.filter_map(|label| label.split_once('='));
            Sample {
                name: name.into(),
                labels: labels
                    .map(|(key, value)| (key.into(), value.trim_matches('"').into()))
                    .collect(),
                value: value.parse().expect("a number"),
            }
        };
        Self(lines.map(read).collect())
    }

    /// The sum of the samples with these labels, written as `name{key=value,key=value}`.
    pub(crate) fn sum(&self, wanted: &str) -> f64 {
        let found = self.found(wanted);
        assert!(!found.is_empty(), "no {wanted}");
        found.into_iter().sum()
    }

    pub(crate) fn has(&self, wanted: &str) -> bool {
        !self.found(wanted).is_empty()
    }

    fn found(&self, wanted: &str) -> Vec<f64> {
        let (name, labels) = wanted.split_once('{').unwrap_or((wanted, "}"));
        let labels = labels.trim_end_matches('}').split(',');
        let labels: Vec<_> = labels.filter_map(|label| label.split_once('=')).collect();
        let is_wanted = |sample: &&Sample| {
            let has =
                |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|it| it == value);
            sample.name == name && labels.iter().all(has)
        };
        self.0.iter().filter(is_wanted).map(|it| it.value).collect()
    }

    /// The values of a label.
    pub(crate) fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let samples = self.0.iter().filter(|sample| sample.name == name);
        samples.map(|sample| sample.labels[label].clone()).collect()
    }

    /// The names of samples, each with the names of its labels, without those of a histogram.
    pub(crate) fn labels(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut all = BTreeMap::<_, BTreeSet<_>>::new();
        for sample in &self.0 {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| sample.name.strip_suffix(suffix))
                .unwrap_or(&sample.name);
            let labels = sample.labels.keys().filter(|key| *key != "le").cloned();
            all.entry(name.to_owned()).or_default().extend(labels);
        }
        all
    }
}
