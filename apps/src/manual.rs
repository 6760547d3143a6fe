//! `pagewire completion` and `pagewire man`: what shells and man(1) know of the commands, made from their definitions.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Command;
use clap_complete::Shell;

use crate::run;

const COMPLETION_EXAMPLES: &str = "\
Examples:
  pagewire completion bash > /etc/bash_completion.d/pagewire
  pagewire completion zsh > /usr/local/share/zsh/site-functions/_pagewire
  pagewire completion fish > ~/.config/fish/completions/pagewire.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  pagewire man --out /usr/local/share/man/man1     every page, for man(1)
  pagewire man l2fwd | man -l -                    one of them, now";

/// What `pagewire completion` is asked to do.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub(crate) struct CompletionArgs {
    /// The shell that is to complete commands and options
    #[arg(value_enum)]
    shell: Shell,
}

/// What `pagewire man` is asked to do.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct ManArgs {
    /// The command whose page is printed. By default that of pagewire itself
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,

    /// Write every page into this folder instead
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Print what a shell reads to complete the commands of `cli`.
pub(crate) fn completion(args: &CompletionArgs, mut cli: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "pagewire", &mut script);
    Ok(run::print(&String::from_utf8(script)?)?)
}

/// Print a page, or write all.
pub(crate) fn man(args: &ManArgs, cli: Command) -> Result<()> {
    let mut cli = cli.disable_help_subcommand(true);
    if let Some(folder) = &args.out {
        return clap_mangen::generate_to(cli, folder)
            .with_context(|| format!("writing pages into {}", folder.display()));
    }
    cli.build();
    let mut command = &cli;
    for name in &args.command {
        let Some(found) = command.find_subcommand(name) else {
            let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            bail!("{} has no command {name}; it has: {}", command.get_name(), names.join(", "));
        };
        command = found;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(run::print(&String::from_utf8(page)?)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{Arg, CommandFactory as _};

    use super::*;
    use crate::Cli;

    /// Every command, with the words that lead to it.
    fn commands() -> Vec<(String, Command)> {
        fn below(words: &str, command: &Command, all: &mut Vec<(String, Command)>) {
            all.push((words.to_owned(), command.clone()));
            for one in command.get_subcommands().filter(|one| one.get_name() != "help") {
                below(&format!("{words} {}", one.get_name()), one, all);
            }
        }
        let mut cli = Cli::command();
        cli.build();
        let mut all = Vec::new();
        below("pagewire", &cli, &mut all);
        all
    }

    #[test]
    fn every_command_ends_its_help_with_examples_of_itself() {
        let all = commands();
        assert!(all.len() >= 13, "{}", all.len());
        for (words, mut command) in all {
            let help = command.render_long_help().to_string();
            let (_, examples) =
                help.rsplit_once("\nExamples:\n").unwrap_or_else(|| panic!("{words}: no examples"));
            // Listing is what `dev` does, and showing what `hugepages` does.
            let words = words.trim_end_matches(" list").trim_end_matches(" show");
            assert!(examples.contains(words), "{words}: {examples}");
            assert!(command.get_about().is_some(), "{words}: what is it?");
        }
    }

    /// Every example is a command line that is understood.
    #[test]
    fn every_example_can_be_typed() {
        for (words, command) in commands() {
            let examples = command.get_after_help().expect("examples").to_string();
            for line in examples.lines().filter_map(|line| line.trim_start().strip_prefix("pagewire ")) {
                // What is explained stands behind a gap.
                let line = line.split("  ").next().unwrap_or_default();
                let line = line.split([';', '|', '>', '&']).next().unwrap_or_default();
                let mut quoted = false;
                let split = line.split(|letter: char| {
                    quoted ^= letter == '\'';
                    letter == ' ' && !quoted
                });
                let typed = split.map(|word| word.replace('\'', "")).filter(|word| !word.is_empty());
                let typed = std::iter::once("pagewire".to_owned()).chain(typed);
                if let Err(error) = Cli::command().try_get_matches_from(typed) {
                    panic!("{words}: {line}: {error}");
                }
            }
        }
    }

    /// Options that have a name in common and mean different things: of pktgen's frames and of huge pages, of packets and of huge
    /// pages, a capture and a folder, looked after and had.
    const DIFFERENT: &[&str] = &["size", "count", "out", "vfs"];

    /// What is said first, whatever it is said for.
    fn gist(option: &Arg) -> String {
        let help = option.get_help().map(|help| help.to_string()).unwrap_or_default();
        let help = match help.split_once(": ") {
            Some((with, rest)) if with.starts_with("With --") => rest,
            _ => &help,
        };
        help.split([':', '.', ',']).next().unwrap_or_default().to_lowercase()
    }

    #[test]
    fn an_option_of_several_commands_is_the_same_in_all() {
        let mut options: BTreeMap<String, Vec<(String, Arg)>> = BTreeMap::new();
        for (words, command) in commands() {
            for option in command
                .get_arguments()
                .filter(|option| option.get_id() != "help" && option.get_id() != "version")
            {
                if let Some(name) = option.get_long() {
                    options.entry(name.to_owned()).or_default().push((words.clone(), option.clone()));
                }
            }
        }
        let mut wrong = Vec::new();
        for (name, all) in &options {
            let (first_words, first) = &all[0];
            for (words, option) in all {
                let value = |option: &Arg| option.get_value_names().map(|names| format!("{names:?}"));
                let same = DIFFERENT.contains(&name.as_str())
                    || value(option) == value(first)
                        && option.get_short() == first.get_short()
                        && gist(option) == gist(first);
                if !same {
                    wrong.push(format!(
                        "--{name}: {first_words} says {:?} of {:?}, {words} {:?} of {:?}",
                        gist(first),
                        value(first),
                        gist(option),
                        value(option)
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for name in DIFFERENT {
            assert!(options.get(*name).is_some_and(|all| all.len() > 1), "{name} is of one command");
        }
    }

    #[test]
    fn shells_and_man_get_all_commands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pagewire", &mut script);
            let script = String::from_utf8(script).expect("text");
            for word in ["l2fwd", "hugepages", "rx-ring", "capture-socket"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let args = ManArgs { command: Vec::new(), out: Some(folder.path().into()) };
        man(&args, Cli::command()).expect("pages");
        for (words, command) in commands() {
            let page = folder.path().join(format!("{}.1", words.replace(' ', "-")));
            let page =
                std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            for option in command.get_arguments().filter_map(Arg::get_long) {
                assert!(page.contains(&option.replace('-', "\\-")), "{words}: no --{option}");
            }
            assert!(page.contains("Examples:"), "{words}");
        }
        let args = ManArgs { command: vec!["dev".into(), "frob".into()], out: None };
        let refused = man(&args, Cli::command()).expect_err("there is none").to_string();
        assert!(refused.contains("has no command frob; it has: list, bind, unbind"), "{refused}");
    }
}
