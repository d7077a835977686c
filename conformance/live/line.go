// SPDX-License-Identifier: Apache-2.0

package live

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fairlead.io/fairlead/lab/load"
)

// Line is a request and what must come of it.
type Line struct {
	Number int
	Text   string

	Source string // pod, workload, ns/pod, node or "outside"
	Method string // of HTTP
	URL    string // may hold {POD} for an address
	// Options.
	Headers    [][2]string
	Host       string // the authority, if it is not the URL's; of TLS the server name
	Target     string // of the request, in place of the URL's path
	Body       string
	Repeat     int
	Every      time.Duration // from one repetition to the next
	KeepAlive  bool          // all repeats over one connection
	Family     string        // "4", "6", "" = any
	SourcePort uint16
	From       string // source address
	Timeout    time.Duration
	Eventually bool // tried again until it holds, for a few seconds

	Want Want
}

// Want is the expected answer.
type Want struct {
	// Status is what must come: "200", "2xx", "200-299", a status of gRPC, "ok" of
	// what has no status, or a class of failures; several with | between them.
	Status string
	Shares []Share
	Fields []Field
}

// Share says who answers. Percent 0: it is one of those that may answer.
type Share struct {
	Name    string // pod, workload or value of the label "version"
	Percent float64
}

// Field is a condition on an answer.
type Field struct{ Name, Op, Value string }

// fieldNames are those that a condition may be about.
var fieldNames = []string{"path", "host", "method", "body", "node", "protocol", "peer", "local", "account", "count", "pods", "took", "by", "led"}

// ParseLines reads requests, one a line. Empty lines and those that begin with #
// are left out.
func ParseLines(text string) ([]Line, error) {
	var out []Line
	var errs []error
	n := 0
	for raw := range strings.Lines(text) {
		n++
		raw = strings.TrimSpace(raw)
		if raw == "" || raw[0] == '#' {
			continue
		}
		l, err := parseLine(raw)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %q: %w", n, raw, err))
		}
		l.Number, l.Text = n, raw
		out = append(out, l)
	}
	return out, errors.Join(errs...)
}

func parseLine(text string) (Line, error) {
	l := Line{Repeat: 1}
	words, err := split(text)
	if err != nil {
		return l, err
	}
	arrow := slices.Index(words, "->")
	if arrow < 2 || arrow == len(words)-1 {
		return l, errors.New("want SOURCE [METHOD] URL [OPTION...] -> ANSWER [CONDITION...]")
	}
	l.Source = words[0]
	left := words[1:arrow]
	if !strings.Contains(left[0], "://") {
		l.Method, left = left[0], left[1:]
	}
	if len(left) == 0 || !strings.Contains(left[0], "://") {
		return l, errors.New("no URL")
	}
	l.URL = left[0]
	scheme, _, _ := strings.Cut(l.URL, "://")
	switch scheme {
	case "http", "http10", "h2c":
		if l.Method == "" {
			return l, errors.New("no method")
		}
	case "grpc", "ws", "tcp", "tcp-banner", "tls", "udp":
		if l.Method != "" {
			return l, fmt.Errorf("%s has no method", scheme)
		}
	default:
		return l, fmt.Errorf("scheme %q: want http, http10, h2c, grpc, ws, tcp, tcp-banner, tls or udp", scheme)
	}
	for _, w := range left[1:] {
		if err := l.option(w); err != nil {
			return l, err
		}
	}
	l.Want.Status = words[arrow+1]
	return l, l.Want.conditions(words[arrow+2:])
}

func (l *Line) option(w string) error {
	name, value, _ := strings.Cut(w, "=")
	var err error
	switch {
	case w == "keepalive":
		l.KeepAlive = true
	case w == "v4" || w == "v6":
		l.Family = w[1:]
	case w == "eventually":
		l.Eventually = true
	case w[0] == '*':
		if l.Repeat, err = strconv.Atoi(w[1:]); err != nil || l.Repeat < 1 {
			return fmt.Errorf("%q: want *NUMBER", w)
		}
	case name == "host" && value != "":
		l.Host = value
	case name == "target" && value != "":
		l.Target = value
	case name == "body":
		l.Body = value
	case name == "every":
		if l.Every, err = time.ParseDuration(value); err != nil {
			return fmt.Errorf("%q: want a duration", w)
		}
	case name == "sourceport":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return fmt.Errorf("%q: want a port", w)
		}
		l.SourcePort = uint16(n)
	case name == "from" && value != "":
		l.From = value
	case name == "timeout":
		if l.Timeout, err = time.ParseDuration(value); err != nil {
			return fmt.Errorf("%q: want a duration", w)
		}
	default:
		header, value, ok := strings.Cut(w, ":")
		if !ok || header == "" {
			return fmt.Errorf("option %q is not known", w)
		}
		l.Headers = append(l.Headers, [2]string{header, value})
	}
	return nil
}

func (w *Want) conditions(words []string) error {
	for _, c := range words {
		if percent, ok := strings.CutSuffix(c, "%"); ok {
			n, err := strconv.ParseFloat(percent, 64)
			if err != nil || n <= 0 || n > 100 || len(w.Shares) == 0 {
				return fmt.Errorf("condition %q: want NAME NUMBER%%", c)
			}
			w.Shares[len(w.Shares)-1].Percent = n
			continue
		}
		i := strings.IndexAny(c, "=<>~")
		if i < 0 {
			w.Shares = append(w.Shares, Share{Name: c})
			continue
		}
		f := Field{c[:i], c[i : i+1], c[i+1:]}
		kind, _, dotted := strings.Cut(f.Name, ".")
		if !slices.Contains(fieldNames, f.Name) && !(dotted && (kind == "header" || kind == "answer")) {
			return fmt.Errorf("condition %q: %q is not known", c, f.Name)
		}
		w.Fields = append(w.Fields, f)
	}
	return nil
}

// split cuts at blanks, but not within double quotes.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted, begun := false, false
	for _, r := range text {
		switch {
		case r == '"':
			quoted, begun = !quoted, true
		case !quoted && (r == ' ' || r == '\t'):
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quoted {
		return nil, errors.New("a double quote is not closed")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// resolve puts addresses where a text says {NAME}, {NAME|6} or {NAME|mapped}.
func resolve(text string, address func(name, form string) (string, error)) (string, error) {
	for {
		before, rest, ok := strings.Cut(text, "{")
		inner, after, closed := strings.Cut(rest, "}")
		if !ok || !closed {
			return text, nil
		}
		name, form, _ := strings.Cut(inner, "|")
		a, err := address(name, form)
		if err != nil {
			return "", err
		}
		text = before + a + after
	}
}

// request is the line as the pod's client takes it.
func (l *Line) request(address func(name, form string) (string, error)) (load.Request, error) {
	r := load.Request{Method: l.Method, Body: l.Body, Repeat: l.Repeat, KeepAlive: l.KeepAlive, Family: l.Family, SourcePort: l.SourcePort}
	var err error
	if r.URL, err = resolve(l.URL, address); err != nil {
		return r, err
	}
	if r.SourceAddress, err = resolve(l.From, address); err != nil {
		return r, err
	}
	if r.Host, err = resolve(l.Host, address); err != nil {
		return r, err
	}
	if r.Target, err = resolve(l.Target, address); err != nil {
		return r, err
	}
	r.SourceAddress = strings.Trim(r.SourceAddress, "[]")
	if l.Timeout > 0 {
		r.Timeout = l.Timeout.String()
	}
	if l.Every > 0 {
		r.Every = l.Every.String()
	}
	for _, h := range l.Headers {
		if r.Headers == nil {
			r.Headers = map[string]string{}
		}
		if r.Headers[h[0]], err = resolve(h[1], address); err != nil {
			return r, err
		}
	}
	return r, nil
}
