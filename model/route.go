// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strconv"
	"time"
)

// MatchKind says how a string is compared. Regex is RE2 and matches the whole string.
type MatchKind string

const (
	Exact  MatchKind = "exact"
	Prefix MatchKind = "prefix" // by string
	// Segments is a prefix of whole path segments (paths only): "/a" takes "/a" and
	// "/a/b", not "/ab". Without trailing slash, but for "/".
	Segments MatchKind = "segments"
	Suffix   MatchKind = "suffix"
	Regex    MatchKind = "regex"
	Present  MatchKind = "present" // any value, also empty
	// Template is an Envoy URI template (paths only): {*} is one segment, {**} any number.
	Template MatchKind = "template"
)

// StringMatch compares one string.
type StringMatch struct {
	Kind       MatchKind `json:"kind"`
	Value      string    `json:"value,omitempty"`
	IgnoreCase bool      `json:"ignoreCase,omitempty"`
}

// NamedMatch compares a header (lower-case name) or query parameter.
type NamedMatch struct {
	Name  string      `json:"name"`
	Match StringMatch `json:"match"`
	Not   bool        `json:"not,omitempty"` // the opposite; see MissingEmpty
	// MissingEmpty treats a missing header as an empty one before comparing, so
	// that Not matches it by value. Without it a missing header never matches,
	// and Not of Present matches a missing header.
	MissingEmpty bool `json:"missingEmpty,omitempty"`
}

// Frontend is what clients of a service's port get. Tables "route/<plane>" and,
// after merge, "frontend"; key: FrontendKey.
type Frontend struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service,omitempty"`
	// Host is set instead of Service for a host that has no service: lower case,
	// exact or "*.suffix". Its addresses are not known: any that is nobody else's, with
	// the port, may be it. Such a frontend is HTTP and routed by authority.
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port"`
	// App is the protocol as its plane sees it; AppUndeclared leaves the service's.
	App App `json:"app,omitempty"`
	// Routes are tried in order; a request that none matches gets 404. Used if the
	// port is HTTP.
	Routes []Route `json:"routes,omitempty"`
	// Backends share the connections of a port that is not HTTP. Empty: the
	// service's own endpoints.
	Backends []Backend `json:"backends,omitempty"`
	// Connections are used instead of Backends, for connections that are not HTTP: of
	// those that match, the one with the most specific server name, the first among
	// equals; one that none matches is closed. Only AppTLS, AppTCP and AppDetect.
	Connections []ConnectionRoute `json:"connections,omitempty"`
	// DetectTimeout is how long the first bytes are waited for (AppDetect) before the
	// connection is taken as opaque; 0: for ever.
	DetectTimeout time.Duration `json:"detectTimeout,omitempty"`
	// Choice says how other hosts than its own are treated; open fields are as the
	// namespace and the plane say.
	Choice Choice `json:"choice,omitzero"`
	// Invalid makes the frontend answer 500 to everything: its plane could not
	// translate it and no earlier version exists.
	Invalid bool     `json:"invalid,omitempty"`
	Src     []Source `json:"-"`
}

// FrontendKey is the key of a service's port in the frontend tables.
func FrontendKey(namespace, service string, port uint16) string {
	return namespace + "/" + service + ":" + strconv.Itoa(int(port))
}

// HostKey is the key of a host without service in the frontend tables.
func HostKey(namespace, host string, port uint16) string {
	return namespace + "/host/" + host + ":" + strconv.Itoa(int(port))
}

// Key of the frontend in its table.
func (f *Frontend) Key() string {
	if f.Host != "" {
		return HostKey(f.Namespace, f.Host, f.Port)
	}
	return FrontendKey(f.Namespace, f.Service, f.Port)
}

// ConnectionRoute shares connections among backends. The zero match takes all.
type ConnectionRoute struct {
	// ServerNames are what the client may say in its TLS handshake (SNI): lower case,
	// exact or "*.suffix"; empty: any, also none, also without TLS. They are not read
	// with AppDetect: who asks for one takes nothing there.
	ServerNames     []string          `json:"serverNames,omitempty"`
	SourceNamespace string            `json:"sourceNamespace,omitempty"`
	SourceLabels    map[string]string `json:"sourceLabels,omitempty"`
	// Backends by weight; the share of one without endpoints goes to the others. None
	// has endpoints, or none is there: closed.
	Backends []Backend `json:"backends,omitempty"`
	// Original sends on to the address that the client has dialled, in place of Backends.
	Original bool     `json:"original,omitempty"`
	Src      []Source `json:"-"`
}

// Route is one match and what happens to requests that it matches.
type Route struct {
	Match RouteMatch `json:"match"`
	// Backends share the requests by weight. Empty, with none of
	// Direct, Redirect and Original: 503.
	Backends []Backend `json:"backends,omitempty"`
	Direct   *Direct   `json:"direct,omitempty"`
	Redirect *Redirect `json:"redirect,omitempty"`
	// Original sends on to the address that the client has dialled.
	Original bool `json:"original,omitempty"`

	RequestHeaders  HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders HeaderEdit `json:"responseHeaders,omitzero"`
	Rewrite         *Rewrite   `json:"rewrite,omitempty"`
	Mirrors         []Mirror   `json:"mirrors,omitempty"`
	// Fault is before everything else. CORS is before backends; it does nothing for
	// requests that are answered by Direct, Redirect or the Status of a Backend.
	Fault   *Fault        `json:"fault,omitempty"`
	CORS    *CORS         `json:"cors,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // of the whole request, with its retries; 0 = none
	// IdleTimeout ends a request on which nothing moves in either direction; 0 = none. One
	// whose routes have to be loaded first may be silent for a minute all the same.
	IdleTimeout time.Duration `json:"idleTimeout,omitempty"`
	Retry       *Retry        `json:"retry,omitempty"` // nil = no retries
	Src         []Source      `json:"-"`
}

// RouteMatch is a conjunction; the zero value matches everything.
type RouteMatch struct {
	Path      *StringMatch `json:"path,omitempty"` // Exact, Prefix, Segments, Regex; without the query
	Method    *StringMatch `json:"method,omitempty"`
	Scheme    *StringMatch `json:"scheme,omitempty"`
	Authority *StringMatch `json:"authority,omitempty"`
	Headers   []NamedMatch `json:"headers,omitempty"`
	Query     []NamedMatch `json:"query,omitempty"`
	// Source restricts by the client: its namespace and labels (all must be there).
	SourceNamespace string            `json:"sourceNamespace,omitempty"`
	SourceLabels    map[string]string `json:"sourceLabels,omitempty"`
}

// Backend is a share of the traffic. A backend whose service, port or subset does
// not exist keeps its share of requests and answers 503; connections of an opaque
// port go to the backends that are there.
type Backend struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Port      uint16 `json:"port"`
	// Labels restrict to the service's workloads that carry them all (a subset).
	Labels map[string]string `json:"labels,omitempty"`
	// Missing says that the plane knows that this backend cannot exist (an unknown
	// subset, for example): its share gets Status.
	Missing bool `json:"missing,omitempty"`
	// Status is what the share of a Missing backend is answered with, without retries;
	// 0 is 503 by a cluster without endpoints.
	Status uint32 `json:"status,omitempty"`
	Weight uint32 `json:"weight"`
	// Policy is how its endpoints are dealt with; nil: evenly, without limits.
	Policy *TrafficPolicy `json:"policy,omitempty"`

	RequestHeaders  HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders HeaderEdit `json:"responseHeaders,omitzero"`
}

// Direct answers without a backend.
type Direct struct {
	Status uint32 `json:"status"`
	Body   string `json:"body,omitempty"`
}

// HeaderEdit changes headers; each list is sorted by name. Names are lower case.
// A Set of ":authority" replaces the host.
type HeaderEdit struct {
	Set    []Header `json:"set,omitempty"`
	Add    []Header `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty"`
}

// IsZero reports whether nothing is edited.
func (e HeaderEdit) IsZero() bool { return len(e.Set)+len(e.Add)+len(e.Remove) == 0 }

// Header is a name and a literal value.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Rewrite changes path or authority. Path replaces the matched prefix if the
// match is a prefix, else the whole path. FullPath replaces the whole path whatever the
// match is. PathRegex wins over both.
//
// In place of Segments comes Path without its slashes at the end, and what follows the
// segments stays with its slash: "/a" by "/b" or "/b/" makes "/b", "/b/" and "/b/x" of
// "/a", "/a/" and "/a/x". Nothing left of "/a" by "/" is "/".
type Rewrite struct {
	Path      string     `json:"path,omitempty"`
	FullPath  string     `json:"fullPath,omitempty"`
	PathRegex *RegexEdit `json:"pathRegex,omitempty"`
	Authority string     `json:"authority,omitempty"`
}

// RegexEdit is an RE2 substitution with \1-style references.
type RegexEdit struct {
	Match       string `json:"match"`
	Replacement string `json:"replacement"`
}

// Mirror sends a copy of a share of the requests and drops the answers.
type Mirror struct {
	Backend Backend `json:"backend"`
	// PerMillion is the share that is copied, 0 to 1,000,000.
	PerMillion uint32 `json:"perMillion"`
	// Shadow: the host that the copy names ends in "-shadow".
	Shadow bool     `json:"shadow,omitempty"`
	Src    []Source `json:"-"`
}

// Retry repeats failed requests. On and StatusCodes use Envoy's retry_on words.
type Retry struct {
	Attempts      uint32        `json:"attempts"` // beyond the first; > 0
	On            []string      `json:"on,omitempty"`
	StatusCodes   []uint32      `json:"statusCodes,omitempty"`
	PerTryTimeout time.Duration `json:"perTryTimeout,omitempty"`
	Backoff       time.Duration `json:"backoff,omitempty"`    // base interval; 0 = 25 ms
	BackoffMax    time.Duration `json:"backoffMax,omitempty"` // 0 = ten times the base
	// MaxBody is the size in bytes above which a request's body is not kept, and the
	// request not repeated; 0 = as large as the proxy's buffers.
	MaxBody        uint32 `json:"maxBody,omitempty"`
	AvoidPrevious  bool   `json:"avoidPrevious,omitempty"`
	OtherLocations bool   `json:"otherLocations,omitempty"`
}
