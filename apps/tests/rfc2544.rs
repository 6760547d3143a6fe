//! `pagewire pktgen --rfc2544` with devices whose limits are known: modelled cables that carry so much and no more, and none at all.

mod common;

use serde_json::Value;

use common::place::{Place, count};

/// What RFC 2544's tests find of a scenario, with an exit code: every trial, and the end.
fn find_out(place: &Place, arguments: &str, scenario: &str, code: i32) -> (Vec<Value>, Value) {
    std::fs::write(place.folder.path().join("trials.toml"), scenario).expect("a scenario");
    let output = place.output(&format!("pktgen {arguments} --scenario trials.toml --json"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let last = lines.pop().expect("a report");
    (lines.into_iter().map(|line| line["trial"].clone()).collect(), last)
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

/// Packets a second of 64 bytes, which are 672 bits with preamble and gap, at 10 Mb/s.
const CABLE: f64 = 10e6 / 672.0;

/// The limit is the cable's and far below any machine's, so that whoever else runs here does not change it.
#[test]
fn the_rate_of_a_cable_behind_a_forwarder_is_found() {
    let place = Place::new();
    let wires = "--socket a --socket b --socket c --socket d --wire pair --wire pair:10";
    let _model = place.start(&format!("model 82599 {wires} --mapped -T 0"), "vfio-user-pci");
    // Rings hold what comes while nobody runs: that of the cable for 69 ms, which is 2.8 % of a trial, or it would look like
    // throughput.
    let forwarder = place.l2fwd("--port vfio-user:b --port vfio-user:c --rx-ring 4096 --tx-ring 1024");
    let scenario = "
        [rfc2544]
        tests = ['throughput']
        sizes = [64]
        trial = 2.5
        search-trial = 2.5
        max-rate = '30kpps'
        resolution = 0.04
        loss-tolerance = 0.02
        attempts = 3
        pause = 0.05";
    let ports = "--port vfio-user:a --port vfio-user:d --rx-ring 4096 --drain 0.2";
    let (trials, last) = find_out(&place, ports, scenario, 0);
    let found = &last["rfc2544"]["sizes"][0]["throughput"];
    let off = number(found, "/received_pps") / CABLE - 1.0;
    assert!(off.abs() <= 0.05, "{off}: {last:#}");
    assert_eq!(found["limit"], "loss", "{last:#}");
    assert!(count(&last, "/rfc2544/trials") == trials.len() as u64 && trials.len() > 2, "{last:#}");
    // More than the cable carries was offered, and lost.
    let lossy = |trial: &Value| number(trial, "/loss") > 0.3 && trial["good"] == false;
    assert!(trials.iter().any(lossy), "{trials:#?}");
    println!("{} trials, {:.1} % off", trials.len(), 100.0 * off);
    // It is the forwarder that had no room for them.
    assert!(count(&forwarder.end(), "/ports/0/drops/tx_full") > 10_000);
}

/// The cable is the generator's own: nothing is lost of what it sends, only less is sent than it is asked for.
#[test]
fn a_generator_that_is_too_slow_is_the_limit_of_rates_and_bursts() {
    let place = Place::new();
    let wires = "--socket a --socket b --wire pair:10";
    let _model = place.start(&format!("model 82599 {wires} --mapped -T 0"), "vfio-user-pci");
    let scenario = "
        [rfc2544]
        tests = ['throughput', 'back-to-back']
        sizes = [64]
        trial = 0.5
        search-trial = 0.5
        max-rate = '20kpps'
        resolution = 0.5
        loss-tolerance = 0.1
        pause = 0.05";
    let ports = "--port vfio-user:a --port vfio-user:b --rx-ring 4096 --tx-ring 128";
    let (_, last) = find_out(&place, ports, scenario, 0);
    let found = &last["rfc2544"]["sizes"][0];
    assert_eq!(found["throughput"]["limit"], "sender", "{last:#}");
    let burst = &found["back_to_back"];
    assert_eq!((&burst["limit"], &burst["all"]), (&"sender".into(), &false.into()), "{last:#}");
    // Of 40000, what the cable makes up for and the ring, and what leaves meanwhile.
    assert!(count(burst, "/frames") < 10_000, "{last:#}");
}

/// What a null port sends arrives nowhere.
#[test]
fn a_device_that_nothing_comes_through_meets_no_criterion() {
    let place = Place::new();
    let scenario = "
        [pass]
        max-latency = 1000.0
        [rfc2544]
        tests = ['latency']
        sizes = [64, 128]
        trial = 0.05
        search-trial = 0.05
        max-rate = '1kpps'
        resolution = 0.5
        pause = 0
        [[stream]]
        rx = 1";
    let (_, last) = find_out(&place, "--port null: --port ring:x --port ring:x --drain 0.05", scenario, 3);
    let failed = serde_json::json!(["64 bytes: no rate went well", "128 bytes: no rate went well"]);
    assert_eq!(last["failed"], failed, "{last:#}");
    assert_eq!(last["rfc2544"]["sizes"][0]["throughput"]["limit"], "loss", "{last:#}");
}

/// With streams both ways, as much as a port is to carry is asked of both together.
#[test]
fn the_least_throughput_is_of_each_port_that_sends() {
    let place = Place::new();
    let scenario = "
        [rfc2544]
        tests = ['throughput']
        sizes = [64]
        trial = 0.1
        max-rate = '1kpps'
        min-throughput = '1.5kpps'
        loss-tolerance = 0.5
        attempts = 5
        pause = 0
        [[stream]]
        [[stream]]
        tx = 1";
    let (_, last) = find_out(&place, "--port ring:x --port ring:x", scenario, 3);
    let failed = last["failed"][0].as_str().expect("a reason");
    assert!(
        failed.starts_with("64 bytes: min-throughput: ") && failed.ends_with("is less than 3000"),
        "{failed}"
    );
}

#[test]
fn what_cannot_be_is_refused_before_the_first_trial() {
    let place = Place::new();
    let ports = "pktgen --port ring:x --port ring:x --rfc2544";
    for (arguments, expected) in [
        ("--sizes 1518,64 --src-ip fd00::1 --dst-ip fd00::2", "stream stream0: size: headers of 62 bytes"),
        ("=throughput --sizes 64 --max-loss 0", "pass: limits such as max-loss"),
        ("--sizes 64 --min-throughput 15Mpps", "rfc2544: min-throughput"),
    ] {
        let space = if arguments.starts_with('=') { "" } else { " " };
        let output = place.output(&format!("{ports}{space}{arguments}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{arguments}: {said}");
        assert!(output.stdout.is_empty() && !said.contains("bytes, "), "{arguments} has begun: {said}");
    }
}

#[test]
fn a_pause_between_trials_ends_when_it_is_told_to() {
    let place = Place::new();
    let scenario = "[rfc2544]\ntests = ['throughput']\nsizes = [64]\nmax-rate = '1kpps'\npause = 60";
    std::fs::write(place.folder.path().join("trials.toml"), scenario).expect("a scenario");
    let run = place.start("pktgen --port ring:x --port ring:x --scenario trials.toml --json", "port 1 (");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let told = std::time::Instant::now();
    let last = run.end();
    assert!(told.elapsed() < std::time::Duration::from_secs(5), "it took {:?}", told.elapsed());
    assert_eq!((&last["rfc2544"]["interrupted"], count(&last, "/rfc2544/trials")), (&true.into(), 0));
}
