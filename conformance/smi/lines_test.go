// SPDX-License-Identifier: Apache-2.0

package smi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A case is a file of the decision table, see conformance/live, as far as the table uses
// its language. What is not known here is an error.
type tableCase struct {
	name      string
	about     string // its first line
	home      string // namespace
	manifests []manifest
	lines     []line
}

type manifest struct{ name, text string }

// line is a request and what must come of it.
type line struct {
	text, source string
	request      request
	status       string
	shares       []share
}

// request is as the lab's client takes it.
type request struct {
	URL       string            `json:"url"`
	Method    string            `json:"method,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Host      string            `json:"host,omitempty"`
	Repeat    int               `json:"repeat,omitempty"`
	KeepAlive bool              `json:"keepAlive,omitempty"`
	Family    string            `json:"family,omitempty"`
	Body      string            `json:"body,omitempty"`
	Target    string            `json:"target,omitempty"`
	Timeout   string            `json:"timeout,omitempty"`
}

// share says who answers, and how often; percent 0: it is one of those that may.
type share struct {
	version string
	percent float64
}

// readCase reads a file. base is what it uses, if it has a namespace of its own.
func readCase(file string) (*tableCase, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	name := strings.ReplaceAll(strings.TrimSuffix(file[strings.LastIndex(file, "/")+1:], ".txtar"), "_", "-")
	c := &tableCase{name: name, home: name}
	section := ""
	parts := map[string]*bytes.Buffer{}
	for l := range strings.Lines(string(b)) {
		if m := sectionLine.FindStringSubmatch(l); m != nil {
			section = m[1]
			parts[section] = &bytes.Buffer{}
			if section != "requests" {
				c.manifests = append(c.manifests, manifest{name: section})
			}
			continue
		}
		switch home, shares := strings.CutPrefix(l, "in: "); {
		case section != "":
			parts[section].WriteString(l)
		case shares:
			c.home = strings.TrimSpace(home)
		case strings.HasPrefix(l, "use: ") && strings.TrimSpace(l) != "use: smi":
			return nil, fmt.Errorf("%s: %s", file, l)
		case c.about == "":
			c.about = strings.TrimSpace(l)
		}
	}
	for i := range c.manifests {
		c.manifests[i].text = strings.ReplaceAll(parts[c.manifests[i].name].String(), "$ns", c.home)
	}
	if parts["requests"] == nil {
		return nil, fmt.Errorf("%s: no requests", file)
	}
	for _, text := range lines(parts["requests"].String()) {
		if text = strings.TrimSpace(text); text == "" || text[0] == '#' {
			continue
		}
		l, err := parseLine(strings.ReplaceAll(text, "$ns", c.home))
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, text, err)
		}
		c.lines = append(c.lines, l)
	}
	return c, nil
}

var sectionLine = regexp.MustCompile(`^-- (\S+) --\s*$`)

func parseLine(text string) (line, error) {
	l := line{text: text}
	words := quoted.FindAllString(text, -1)
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, `"`, "")
	}
	arrow := slices.Index(words, "->")
	if arrow < 2 || arrow == len(words)-1 {
		return l, errors.New("want SOURCE [METHOD] URL [OPTION...] -> ANSWER [VERSION [SHARE%]...]")
	}
	l.source = words[0]
	asked := words[1:arrow]
	if !strings.Contains(asked[0], "://") {
		l.request.Method, asked = asked[0], asked[1:]
	}
	l.request.URL = asked[0]
	for _, w := range asked[1:] {
		name, value, _ := strings.Cut(w, "=")
		header, content, isHeader := strings.Cut(w, ":")
		n, err := strconv.Atoi(strings.TrimPrefix(w, "*"))
		switch {
		case w[0] == '*' && err == nil:
			l.request.Repeat = n
		case w == "keepalive":
			l.request.KeepAlive = true
		case w == "v4" || w == "v6":
			l.request.Family = w[1:]
		case name == "host":
			l.request.Host = value
		case name == "body":
			l.request.Body = value
		case name == "timeout":
			l.request.Timeout = value
		case name == "target":
			l.request.Target = value
		case isHeader:
			if l.request.Headers == nil {
				l.request.Headers = map[string]string{}
			}
			l.request.Headers[header] = content
		default:
			return l, fmt.Errorf("option %q is not known", w)
		}
	}
	l.status = words[arrow+1]
	for _, w := range words[arrow+2:] {
		percent, isShare := strings.CutSuffix(w, "%")
		switch p, err := strconv.ParseFloat(percent, 64); {
		case isShare && err == nil && len(l.shares) > 0:
			l.shares[len(l.shares)-1].percent = p
		case isShare || strings.ContainsAny(w, "=<>~"):
			return l, fmt.Errorf("condition %q is not known", w)
		default:
			l.shares = append(l.shares, share{version: w})
		}
	}
	return l, nil
}

var quoted = regexp.MustCompile(`(?:[^\s"]|"[^"]*")+`)

// answer is what one request came to.
type answer struct {
	Request int
	Status  int
	Error   string
	Detail  string
	Answer  *struct {
		Pod    string
		Labels map[string]string
	}
}

func parseAnswers(text string) (out []answer, err error) {
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	return out, nil
}

// judge compares answers with what a line wants.
func (l line) judge(answers []answer) error {
	if want := max(l.request.Repeat, 1); len(answers) != want {
		return fmt.Errorf("%s: %d answers, want %d", l.text, len(answers), want)
	}
	by := map[string]int{}
	for _, a := range answers {
		if !l.takes(a) {
			return fmt.Errorf("%s: got %d %s %s", l.text, a.Status, a.Error, a.Detail)
		}
		if a.Answer != nil {
			by[a.Answer.Labels["version"]]++
		}
	}
	if len(l.shares) == 0 {
		return nil
	}
	meant := 0
	for _, s := range l.shares {
		n := by[s.version]
		meant += n
		if s.percent == 0 {
			continue
		}
		// Five standard deviations: once in a million.
		p := s.percent / 100
		if float64(len(answers))*p-5*math.Sqrt(float64(len(answers))*p*(1-p)) > float64(n) || float64(n) > float64(len(answers))*p+5*math.Sqrt(float64(len(answers))*p*(1-p)) {
			return fmt.Errorf("%s: %s answered %d of %d", l.text, s.version, n, len(answers))
		}
	}
	if meant != len(answers) {
		return fmt.Errorf("%s: answered by %v", l.text, by)
	}
	return nil
}

// takes reports whether an answer is among those that are wanted.
func (l line) takes(a answer) bool {
	for want := range strings.SplitSeq(l.status, "|") {
		from, to, isRange := strings.Cut(want, "-")
		low, err1 := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		switch {
		case a.Error != "":
			if want == "failed" || want == a.Error {
				return true
			}
		case want == "ok" && a.Status == 200, want == strconv.Itoa(a.Status):
			return true
		case isRange && err1 == nil && err2 == nil && low <= a.Status && a.Status <= high:
			return true
		}
	}
	return false
}
