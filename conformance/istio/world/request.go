// SPDX-License-Identifier: Apache-2.0

package world

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Request is what a pod sends, and how often.
type Request struct {
	Text   string
	Source string // ns/name, or a name in the namespace default
	Scheme string // http, h2c, grpc, tcp or tls
	Method string
	Host   string // dialled
	Port   uint16
	Target string // of the request line, as it is sent
	// Authority is what the request names, of TLS the server name; "": Host.
	Authority string
	Headers   [][2]string
	// N requests; 0: a few, and more where the halves do not agree at once.
	N int
	// Spread compares how many servers were reached, one or several, and not which.
	Spread bool
	// Order compares whether servers take turns, too.
	Order bool
	// Together sends all N at once.
	Together bool
	// Keep sends all over one connection.
	Keep bool
}

// ParseRequests reads requests, one a line; # begins a comment.
//
//	SOURCE [METHOD] URL [NAME:VALUE...] [host=AUTHORITY] [*N] [spread] [order] [together] [keep]
func ParseRequests(text string) ([]*Request, error) {
	var out []*Request
	var errs []error
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		q, err := parseRequest(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", line, err))
			continue
		}
		out = append(out, q)
	}
	return out, errors.Join(errs...)
}

var defaultPorts = map[string]uint16{"http": 80, "h2c": 80, "grpc": 80, "tls": 443}

func parseRequest(line string) (*Request, error) {
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	q := &Request{Text: line, Method: "GET"}
	if len(words) < 2 {
		return nil, errors.New("want SOURCE [METHOD] URL")
	}
	q.Source, words = words[0], words[1:]
	if !strings.Contains(words[0], "://") && len(words) > 1 {
		q.Method, words = words[0], words[1:]
	}
	scheme, rest, ok := strings.Cut(words[0], "://")
	if !ok {
		return nil, errors.New("no URL")
	}
	q.Scheme = scheme
	if scheme == "grpc" {
		q.Method = "POST"
	}
	authority, target := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, target = rest[:i], rest[i:]
	}
	if target == "" {
		target = "/"
	}
	q.Target = target
	q.Port = defaultPorts[scheme]
	q.Host = authority
	if h, p, err := net.SplitHostPort(authority); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, err
		}
		q.Host, q.Port = h, uint16(n)
	}
	if q.Port == 0 {
		return nil, errors.New("no port")
	}
	q.Authority = authority
	if scheme == "tls" {
		q.Authority = q.Host
	}
	for _, w := range words[1:] {
		if err := q.option(w); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func (q *Request) option(w string) error {
	switch {
	case w == "spread":
		q.Spread = true
	case w == "order":
		q.Order = true
	case w == "together":
		q.Together = true
	case w == "keep":
		q.Keep = true
	case w[0] == '*':
		n, err := strconv.Atoi(w[1:])
		if err != nil || n < 1 {
			return fmt.Errorf("%q: want *NUMBER", w)
		}
		q.N = n
	case strings.HasPrefix(w, "host="):
		q.Authority = w[len("host="):]
	default:
		name, value, ok := strings.Cut(w, ":")
		if !ok || name == "" {
			return fmt.Errorf("option %q is not known", w)
		}
		q.Headers = append(q.Headers, [2]string{name, value})
	}
	return nil
}

// Waits reports whether the request has its server wait.
func (q *Request) Waits() bool {
	return slices.ContainsFunc(q.Headers, func(h [2]string) bool { return h[0] == "x-echo-delay" })
}

// Path is the target as the standard library takes it.
func (q *Request) Path() *url.URL {
	p, query, _ := strings.Cut(q.Target, "?")
	return &url.URL{Opaque: "", Path: p, RawPath: p, RawQuery: query}
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
