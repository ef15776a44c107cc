"""Go templates: what docker prints for the same text, and errors that have a place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli.template import Row, Template, TemplateError, functions

VALUE = {
    "Name": "web",
    "Count": 3,
    "Half": 1.5,
    "On": True,
    "Off": False,
    "Nil": None,
    "List": ["x", "y"],
    "Empty": [],
    "Map": {"b": "2", "a": "1"},
    "Ports": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": None},
    "Text": "hello world",
    "Binds": None,
    "Labels": None,
    "Id": "abc",
}

GOLDEN = [
    ("plain", "plain"),
    ("{{.Name}}:{{.Count}} {{.Half}} {{.On}}", "web:3 1.5 true"),
    ("{{.Map.a}}{{.Map.zz}}", "1<no value>"),
    ("{{.Nil}} {{print .Nil}}", "<no value> <nil>"),
    ('[{{index .Map "zz"}}]', "[]"),
    ("{{.List}} {{.Map}} {{.Empty}}", "[x y] map[a:1 b:2] []"),
    ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
    (
        "{{range $p, $c := .Ports}}{{$p}} -> {{if $c}}{{(index $c 0).HostPort}}{{else}}-{{end}};{{end}}",
        "80/tcp -> 8080;81/tcp -> -;",
    ),
    ("{{range $i, $e := .List}}{{if $i}},{{end}}{{$e}}{{end}}", "x,y"),
    ("{{range .List}}<{{.}}>{{else}}none{{end}}", "<x><y>"),
    ("{{range .Empty}}x{{else}}none{{end}}", "none"),
    ('{{range .List}}{{if eq . "y"}}{{break}}{{end}}{{.}}{{end}}', "x"),
    ('{{range .List}}{{if eq . "x"}}{{continue}}{{end}}{{.}}{{end}}', "y"),
    ("{{range 3}}{{.}}{{end}}", "012"),
    ("{{if .Empty}}a{{else if .On}}b{{else}}c{{end}}", "b"),
    ("{{with .Map}}{{.b}}{{end}}{{with .Nil}}x{{else}}y{{end}}", "2y"),
    ("{{with $m := .Map}}{{$m.a}}{{$.Name}}{{end}}", "1web"),
    ("{{$x := 1}}{{range .List}}{{$x = .}}{{end}}{{$x}}", "y"),
    ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
    ("a {{- .Name -}} b", "awebb"),
    ("a{{/* note */}}b {{- /* note */ -}} c", "abc"),
    ('{{.Text | upper | printf "%-12s|"}}', "HELLO WORLD |"),
    ('{{title .Text}} {{lower "ABC"}} {{truncate .Text 3}} {{pad .Name 1 2}}|', "Hello World abc hel  web  |"),
    ('{{join .List "-"}} {{split .Text " "}} {{index (split .Text " ") 1}}', "x-y [hello world] world"),
    ("{{len .List}}{{len .Text}}{{len .Map}} {{slice .Text 1 3}} {{slice .List 1}}", "2112 el [y]"),
    ('{{and .On .Name}} {{or .Empty "d"}} {{not .On}} {{and .Off (index .List 9)}}', "web d false false"),
    (
        '{{eq .Name "a" "web"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1 2}}',
        "true true true true true false",
    ),
    ('{{print 1 2 "a" 3}} {{println "a" 1}}', "1 2a3 a 1\n"),
    ("{{'a'}} {{0x10}} {{0b11}} {{1e3}} {{-5}} {{`r\\n`}} {{\"t\\tu\\u00e9\"}}", "97 16 3 1000 -5 r\\n t\tué"),
    (
        '{{printf "%5d|%-5d|%05d|%x|%q|%v|%t|%.2f|%c|%%" 42 42 42 255 "a\\"b" .List .On .Half 65}}',
        '   42|42   |00042|ff|"a\\"b"|[x y]|true|1.50|A|%',
    ),
    ('{{printf "%d %s" .Name}}', "%!d(string=web) %!s(MISSING)"),
    ('{{printf "x" 1}}', "x%!(EXTRA int=1)"),
    ("{{json .Map}} {{json .List}} {{json .Nil}} {{json .Text}}", '{"b":"2","a":"1"} ["x","y"] null "hello world"'),
    ("{{ .Name\n| upper }}", "WEB"),
    ('{{printf "%c%q" 99999999999 -1}}', "\ufffd'\ufffd'"),
    ("{{.Binds}} {{len .Binds}} {{json .Binds}} {{range .Binds}}x{{else}}none{{end}}", "[] 0 null none"),
    ('{{.Labels}} {{len .Labels}} {{json .Labels}} {{index .Labels "a"}}|', "map[] 0 null |"),
    ("{{.ID}} {{.Id}}", "abc abc"),
    ("{{html \"<a href='x'>&\"}}", "&lt;a href=&#39;x&#39;&gt;&amp;"),
    ('{{js "a\\"b<c\\n="}}', 'a\\"b\\u003Cc\\u000A\\u003D'),
    ('{{urlquery "a b/ü" 1}}', "a+b%2F%C3%BC1"),
    ('{{define "x"}}<{{.}}>{{end}}{{template "x" .Name}}{{template "x"}}', "<web><<no value>>"),
    ('{{block "y" .Map}}{{.a}}{{end}}{{template "y" .Map}}', "11"),
    ('{{range .List}}{{template "z" .}}{{end}}{{define "z"}}{{$}};{{end}}', "x;y;"),
]

ERRORS = [
    ("{{", "1:1: unclosed action"),
    ("a\n{{.Name", "2:1: unclosed action"),
    ("{{foo}}", '1:3: function "foo" not defined'),
    ("{{$q}}", '1:3: undefined variable "$q"'),
    ("{{if true}}{{$x := 1}}{{end}}{{$x}}", '1:32: undefined variable "$x"'),
    ("{{if}}", "1:5: missing value for if"),
    ("{{end}}", "1:3: unexpected {{end}}"),
    ("{{range .List}}", "1:3: unexpected end of template"),
    ("{{if .On}}a{{else}}b{{else}}c{{end}}", "expected end; found {{else}}"),
    ("{{break}}", "{{break}} outside {{range}}"),
    ('{{if true}}{{define "x"}}{{end}}{{end}}', "unexpected {{define}}"),
    ('{{define "x"}}', "1:3: unexpected end of template: {{define}} has no {{end}}"),
    ('{{define "x"}}{{else}}{{end}}', "{{define}} has no {{end}}"),
    ("{{define x}}{{end}}", 'unexpected "x" in define clause'),
    ('{{template "x"}}', '1:3: no such template "x"'),
    ('{{block "x"}}{{end}}', "missing value for block clause"),
    ('{{define "x"}}{{template "x"}}{{end}}{{template "x"}}', "exceeded maximum template depth"),
    ('{{$a := 1}}{{define "x"}}{{$a}}{{end}}', 'undefined variable "$a"'),
    ("{{1e999}}", "1:3: number overflow: 1e999"),
    ("{{call .Name}}", "error calling call: non-function of type string"),
    ("{{.Name | 3}}", "non executable command in pipeline stage: 3"),
    ("{{(.Name}}", "unclosed left paren"),
    ('{{"a}}', "unterminated quoted string"),
    ("{{/* a }}", "unclosed comment"),
    ("{{}}", "missing value for command"),
    ("{{1 2}}", "can't give argument to non-function 1"),
    ("{{.Name 1}}", "Name is not a method but has arguments"),
    ("{{.Name.x}}", "1:3: executing at <.Name.x>: can't evaluate field x in type string"),
    ("{{.Nil.x}}", "nil pointer evaluating field x"),
    ("{{index .List 9}}", "error calling index: index out of range: 9"),
    ("{{index .Nil 0}}", "index of nil pointer"),
    ('{{eq 1 "a"}}', "incompatible types for comparison"),
    ("{{truncate}}", "wrong number of args for truncate"),
    ("{{range .Name}}{{end}}", "range can't iterate over web"),
    ("{{len 3}}", "len of type int"),
]


@pytest.mark.parametrize(("template", "printed"), GOLDEN)
def test_prints_what_go_prints(template: str, printed: str) -> None:
    assert Template(template).execute(VALUE) == printed


@pytest.mark.parametrize(("template", "problem"), ERRORS)
def test_errors_have_a_place(template: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template).execute(VALUE)
    assert problem in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_struct_knows_its_fields() -> None:
    with pytest.raises(TemplateError, match=r"can't evaluate field Nam.*did you mean '.Name'"):
        Template("{{.Nam}}").execute(Row(VALUE))


def test_a_method_takes_its_argument() -> None:
    row = Row({"Name": "x"}, {"Label": {"a": "b"}.get})
    assert Template('{{.Label "a"}} {{json .}}').execute(row) == 'b {"Name":"x"}'


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_json_is_json(value: object) -> None:
    assert json.loads(Template("{{json .}}").execute(value)) == value


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_actions_is_itself(text: str) -> None:
    assert Template(text).execute(VALUE) == text


@given(
    st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                ".",
                "Name",
                "$x",
                ":=",
                "=",
                "|",
                "(",
                ")",
                " ",
                "if",
                "else",
                "end",
                "range",
                "with",
                ".List",
                '"a"',
                "'",
                "1",
                "-",
                "/*",
                "*/",
                ",",
                "index",
                "json",
                "\n",
            ]
        ),
        max_size=14,
    )
)
def test_any_text_is_a_template_or_a_template_error(parts: list[str]) -> None:
    try:
        Template("".join(parts)).execute(VALUE)
    except TemplateError:
        pass


@given(st.lists(st.text(max_size=4), max_size=5), st.text(max_size=2))
def test_join_undoes_split(words: list[str], separator: str) -> None:
    joined = Template("{{join .L .S}}").execute({"L": words, "S": separator})
    assert joined == separator.join(words)


def test_a_fault_within_a_function_is_no_wrong_number_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: object) -> object:
        return len(3)  # type: ignore[arg-type]

    monkeypatch.setitem(functions.FUNCTIONS, "upper", broken)
    with pytest.raises(TemplateError, match="error calling upper: object of type 'int' has no len"):
        Template("{{upper .Name}}").execute(VALUE)
    with pytest.raises(TemplateError, match="wrong number of args for upper: got 2"):
        Template("{{upper .Name 1}}").execute(VALUE)
