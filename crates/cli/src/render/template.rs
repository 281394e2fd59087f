//! Templates of `--format`: Docker's words about wrong ones, and what each kind of object is to them.
//!
//! Elsewhere: the language and its types, in [`crate::gotemplate`].

use std::cell::Cell;

use serde_json::Value as Json;

use crate::{
    failure::Failure,
    gotemplate::{
        Absent, Purpose, Reads, Template,
        schema::Type,
        value::{Untyped, Value},
    },
};

/// A parsed template.
pub struct Format {
    template: Template,
    purpose: Purpose,
    /// Docker's client does not turn this back once it has looked at an answer's JSON.
    absent: Cell<Absent>,
}

impl Format {
    fn new(name: &'static str, text: &str, purpose: Purpose) -> Result<Format, String> {
        let template = Template::parse(name, text)?;
        Ok(Format { template, purpose, absent: Cell::new(Absent::NoValue) })
    }

    /// # Errors
    /// In Go's words, when the text is no template.
    pub fn parse(text: &str) -> Result<Format, String> {
        Format::new("", text, Purpose::Row)
    }

    /// As [`Format::parse`], of a template that Docker's client has a name for.
    ///
    /// # Errors
    /// As [`Format::parse`].
    pub fn parse_named(name: &'static str, text: &str) -> Result<Format, String> {
        Format::new(name, text, Purpose::Row)
    }

    /// As [`Format::parse`], for the line of column names.
    ///
    /// # Errors
    /// As [`Format::parse`].
    pub fn parse_header(text: &str) -> Result<Format, String> {
        Format::new("", text, Purpose::Header)
    }

    /// A template for an object rather than a listing; a wrong one ends with status 64, as
    /// Docker's client does.
    ///
    /// # Errors
    /// In Docker's words, when the text is no template.
    pub fn of_object(text: &str) -> Result<Format, Failure> {
        Format::parse(text).map_err(|why| Failure::Said {
            text: format!("template parsing error: {why}"),
            status: 64,
        })
    }

    /// # Errors
    /// In Go's words, when a field is missing or a function refuses its arguments.
    pub fn run(&self, value: &Value) -> Result<String, String> {
        self.template.run(self.purpose, self.absent.get(), value)
    }

    /// As [`Format::run`] for a row, behind others.
    ///
    /// # Errors
    /// As [`Format::run`].
    pub fn run_into(&self, value: &Value, out: &mut String) -> Result<(), String> {
        self.template.run_into(value, out)
    }

    /// Which fields it reads at most.
    pub fn reads(&self) -> Reads {
        self.template.reads()
    }

    /// Shows a value as far as that goes; what went wrong is told behind it.
    pub fn show(&self, value: &Value) -> (String, Result<(), Failure>) {
        let (text, failed) = self.template.run_so_far(value);
        (text, failed.map_or(Ok(()), |why| Err(Failure::new(why))))
    }

    /// Shows a daemon's answer as its type; where that fails, as the JSON it is, in which a missing key
    /// is an error.
    ///
    /// # Errors
    /// In Go's words, of the second attempt.
    pub fn run_on_answer(&self, name: &'static str, answer: &Json) -> Result<String, String> {
        self.run(&typed(name, answer)).or_else(|_| {
            self.absent.set(Absent::Error);
            self.run(&Value::untyped(answer, Untyped::AsWritten))
        })
    }
}

/// An answer as one of the types of `types.txt`.
pub fn typed(name: &'static str, answer: &Json) -> Value {
    Value::decode(Type::Struct(name), Some(answer))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, rc::Rc};

    use super::*;
    use crate::gotemplate::value::Row;

    fn container() -> Json {
        serde_json::json!({
            "Id": "abc",
            "State": {"Status": "running", "Running": true, "Pid": 12},
            "Args": ["<a>"],
            "Config": {"Labels": {"a": "b"}, "Cmd": null, "StopTimeout": 3},
            "HostConfig": {
                "NetworkMode": "bridge",
                "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                "MemorySwappiness": null,
            },
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8099"}], "81/tcp": null}},
            "Extra": 5,
        })
    }

    #[track_caller]
    fn check(template: &str, want: &str) {
        let format = Format::parse(template).unwrap_or_else(|why| panic!("{template}: {why}"));
        let shown = format.run_on_answer("container.InspectResponse", &container());
        assert_eq!(shown.unwrap_or_else(|why| why), want, "{template}");
    }

    #[test]
    fn structs_print_as_go_prints_them() {
        check("{{.State}}", "{running true false false false false 12 0    <nil>}");
        check("{{.NetworkSettings.Ports}}", "map[80/tcp:[{0.0.0.0 8099}] 81/tcp:[]]");
        check("{{.Mounts}} {{.Args}} {{.Config.Labels}}", "[] [<a>] map[a:b]");
        check("{{printf \"%v\" .State}}", "&{running true false false false false 12 0    <nil>}");
        check("{{.HostConfig.Ulimits}}", "[nofile=1:2]");
    }

    #[test]
    fn what_is_absent_has_its_types_zero() {
        check("{{json .Config.Cmd}} {{json .Config.OnBuild}}", "null null");
        check("{{len .Mounts}}{{range .Mounts}}x{{else}} none{{end}}", "0 none");
        check("[{{.Name}}] {{.RestartCount}} {{.Config.Tty}}", "[] 0 false");
        check("{{.HostConfig.MemorySwappiness}} {{.Config.Labels.nope}}", "<nil> <no value>");
        check("{{index .Config.Labels \"nope\"}}|", "|");
        check(
            "{{json .State}}",
            r#"{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":12,"ExitCode":0,"Error":"","StartedAt":"","FinishedAt":""}"#,
        );
        check("{{with .State.Health}}x{{else}}none{{end}}", "none");
    }

    #[test]
    fn what_a_type_has_not_is_looked_for_in_the_answer() {
        check("{{.Extra}} {{.State.Pid}}", "5 12");
        check(
            "{{.State.Health.Status}}",
            "template: :1:8: executing \"\" at <.State.Health.Status>: map has no entry for key \"Health\"",
        );
        check(
            "a {{.Foo}}",
            "template: :1:4: executing \"\" at <.Foo>: map has no entry for key \"Foo\"",
        );
    }

    #[test]
    fn the_language_is_gos() {
        check(r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "8099");
        check(
            r#"{{range $p, $b := .NetworkSettings.Ports}}{{$p}}={{len $b}} {{end}}"#,
            "80/tcp=1 81/tcp=0 ",
        );
        check(
            r#"{{if and .State.Running (eq .HostConfig.NetworkMode "bridge")}}y{{else if .Id}}n{{end}}"#,
            "y",
        );
        check("{{- .State.Pid -}}  x", "12x");
        check("{{/* said */}}{{$x := .State}}{{$x.Pid}}", "12");
        check(r#"{{range $i, $a := .Args}}{{$i}}{{printf "%q" $a}}{{end}}"#, "0\"<a>\"");
        check(r#"{{define "t"}}[{{.}}]{{end}}{{template "t" .State.Pid}}"#, "[12]");
        check(r#"{{join (split "a,b" ",") "/" | upper | printf "%s!"}}"#, "A/B!");
        check(
            r#"{{slice "hello" 1 3}} {{len "abc"}} {{gt 3 2}} {{html "<"}} {{not true}}"#,
            "el 3 true &lt; false",
        );
        check("{{range $k, $v := .Config.Labels}}{{$k}}{{$v}}{{break}}{{end}}", "ab");
    }

    #[test]
    fn what_is_wrong_is_told_in_gos_words() {
        for (text, want) in [
            ("{{.ID", "template: :1: unclosed action"),
            ("{{foo .X}}", "template: :1: function \"foo\" not defined"),
            ("{{if .X}}", "template: :1: unexpected EOF"),
            ("{{end}}", "template: :1: unexpected {{end}}"),
            ("{{$x}}", "template: :1: undefined variable \"$x\""),
            ("{{.X | 5}}", "template: :1: non executable command in pipeline stage 2"),
            ("{{}}", "template: :1: missing value for command"),
            ("{{.X}", "template: :1: bad character U+007D '}'"),
            ("{{\"a}}", "template: :1: unterminated quoted string"),
            ("{{(.X}}", "template: :1: unclosed left paren"),
            ("\n{{range}}", "template: :2: missing value for range"),
            ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ] {
            assert_eq!(Format::parse(text).err().as_deref(), Some(want), "{text}");
        }
        let failure = Format::of_object("{{.ID").err().unwrap();
        assert_eq!(failure.status(), 64);
        assert_eq!(failure.to_string(), "template parsing error: template: :1: unclosed action");
    }

    #[test]
    fn a_row_has_fields_labels_and_functions() {
        let row = Value::Row(Rc::new(Row {
            name: "*formatter.ContainerContext",
            fields: vec![("ID", Value::text("abc")), ("Names", Value::text("one,two"))],
            labels: BTreeMap::from([("com.x".to_owned(), "yes".to_owned())]),
            is_header: false,
        }));
        for (template, want) in [
            ("{{.ID}}: {{.Names}}", "abc: one,two"),
            (r#"{{.Label "com.x"}}{{.Label "none"}}"#, "yes"),
            (r#"{{if eq (.Label "com.x") "yes"}}y{{end}}"#, "y"),
            ("{{upper .ID}} {{title .ID}} {{truncate .ID 2}}", "ABC Abc ab"),
            ("{{pad .ID 1 2}}|", " abc  |"),
            ("{{json .}}", r#"{"ID":"abc","Names":"one,two"}"#),
            (
                "{{.Foo}}",
                "template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext",
            ),
        ] {
            let shown = Format::parse(template).unwrap().run(&row);
            assert_eq!(shown.unwrap_or_else(|why| why), want, "{template}");
        }
    }
}
