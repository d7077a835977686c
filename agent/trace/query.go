// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"fairlead.io/fairlead/model"
)

// Query is a request, or a connection, that is asked about.
type Query struct {
	// From is who sends it: "namespace/pod", a Deployment's or other owner's name in
	// place of the pod's for one of its pods, "node/NAME" for a process of the node, or
	// an address.
	From string `json:"from"`
	// URL says how and where to: http, h2c, grpc or ws for requests, tcp or tls for
	// connections, udp. Without a port the scheme's is meant.
	URL    string `json:"url"`
	Method string `json:"method,omitempty"` // "" = GET; of grpc POST
	// Host is the authority, if it is not the URL's; of tls the server name.
	Host    string         `json:"host,omitempty"`
	Headers []model.Header `json:"headers,omitempty"`
	// To is the address that is dialled, if the URL's host does not say it.
	To netip.Addr `json:"to,omitzero"`
	V6 bool       `json:"v6,omitempty"` // by IPv6, where the host has both
}

// QueryError says that a query cannot be understood, or names what is not there.
type QueryError struct{ msg string }

// Error says what to write instead.
func (e *QueryError) Error() string { return e.msg }

func queryError(format string, a ...any) error { return &QueryError{fmt.Sprintf(format, a...)} }

// request is a query that has been read.
type request struct {
	kind      kind
	host      string // as in the URL, lower case
	port      uint16
	authority string
	method    string
	scheme    string
	path      string // as sent
	query     string
	headers   []model.Header
}

// kind is what is sent.
type kind int

const (
	httpRequest kind = iota
	connection
	tlsConnection
	datagram
)

// schemes are those of URLs, with what they send and where to by default.
var schemes = map[string]struct {
	kind kind
	port uint16
}{
	"http": {httpRequest, 80}, "http10": {httpRequest, 80}, "h2c": {httpRequest, 80}, "grpc": {httpRequest, 80}, "ws": {httpRequest, 80},
	"tcp": {connection, 0}, "tcp-banner": {connection, 0}, "tls": {tlsConnection, 443}, "https": {tlsConnection, 443}, "udp": {datagram, 0},
}

// bare is a URL without what it begins with before ://.
func bare(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		return rest
	}
	return s
}

func (q *Query) parse() (*request, error) {
	u, err := url.Parse(q.URL)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, queryError("URL %q: %v", q.URL, err)
	}
	s, ok := schemes[u.Scheme]
	if !ok {
		return nil, queryError("URL %q: want http, h2c, grpc, ws, tcp, tls, https or udp before ://, as in http://%s", q.URL, cmp.Or(bare(q.URL), "web.shop/"))
	}
	if strings.ContainsFunc(q.Method, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("()<>@,;:\\\"/[]?={}", c) }) {
		return nil, queryError("method %q: want one word, as in GET", q.Method)
	}
	r := &request{kind: s.kind, host: strings.ToLower(u.Hostname()), port: s.port, scheme: "http", method: q.Method, path: u.EscapedPath(), query: u.RawQuery}
	if r.host == "" {
		return nil, queryError("URL %q: there is no host", q.URL)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, queryError("URL %q: %q is no port", q.URL, p)
		}
		r.port = uint16(n)
	}
	if r.port == 0 {
		return nil, queryError("URL %q: write the port: %s has none by itself", q.URL, u.Scheme)
	}
	r.authority = q.Host
	if r.authority == "" {
		r.authority = u.Host
		if u.Scheme == "http10" {
			r.authority = ""
		}
	}
	for _, h := range q.Headers {
		name := strings.ToLower(h.Name)
		if name == "host" || name == ":authority" {
			r.authority = h.Value
			continue
		}
		r.headers = append(r.headers, model.Header{Name: name, Value: h.Value})
	}
	switch {
	case r.kind != httpRequest:
	case u.Scheme == "grpc":
		r.method = "POST"
		if !slices.ContainsFunc(r.headers, func(h model.Header) bool { return h.Name == "content-type" }) {
			r.headers = append(r.headers, model.Header{Name: "content-type", Value: "application/grpc"})
		}
	case r.method == "":
		r.method = "GET"
	}
	if u.Scheme == "ws" {
		r.headers = append(r.headers, model.Header{Name: "connection", Value: "Upgrade"}, model.Header{Name: "upgrade", Value: "websocket"})
	}
	if r.path == "" {
		r.path = "/"
	}
	return r, nil
}
