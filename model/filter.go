// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"
)

// Redirect answers with another place. What is not set stays as it was asked for; the
// query is kept.
type Redirect struct {
	Status uint32 `json:"status"` // 301, 302, 303, 307 or 308
	Scheme string `json:"scheme,omitempty"`
	Host   string `json:"host,omitempty"` // with a port only where Port is 0
	// Port of the new place. 0: none besides Host's; without Host the one that the
	// request names, unless Scheme is another than the request's and the port is that
	// one's own. 80 of http (also without Scheme) and 443 of https are left out, unless
	// Host is empty and the request names a port, which they replace.
	Port uint16 `json:"port,omitempty"`
	// Path replaces the whole path; it may hold a query, which then replaces the
	// request's. Prefix replaces the matched prefix, as in Rewrite, and may be empty. At
	// most one is set.
	Path   string  `json:"path,omitempty"`
	Prefix *string `json:"prefix,omitempty"`
}

// Fault delays or aborts shares of the requests, each by itself.
type Fault struct {
	Delay           time.Duration `json:"delay,omitempty"`
	DelayPerMillion uint32        `json:"delayPerMillion,omitempty"`
	AbortPerMillion uint32        `json:"abortPerMillion,omitempty"`
	// AbortStatus is an HTTP status; 0: AbortGRPC is meant.
	AbortStatus uint32 `json:"abortStatus,omitempty"`
	AbortGRPC   uint32 `json:"abortGRPC,omitempty"`
}

// Words say for people what the fault does, one part each: "5 % delayed by 2s".
func (f *Fault) Words() []string {
	var out []string
	if f.DelayPerMillion > 0 {
		out = append(out, fmt.Sprintf("%s delayed by %s", Percent(f.DelayPerMillion), f.Delay))
	}
	switch {
	case f.AbortPerMillion == 0:
	case f.AbortStatus != 0:
		out = append(out, fmt.Sprintf("%s aborted with %d", Percent(f.AbortPerMillion), f.AbortStatus))
	default:
		out = append(out, fmt.Sprintf("%s aborted with gRPC status %d", Percent(f.AbortPerMillion), f.AbortGRPC))
	}
	return out
}

// Percent is a share in millionths as people read it: "0.5 %".
func Percent(perMillion uint32) string { return fmt.Sprintf("%g %%", float64(perMillion)/1e4) }

// CORS answers browsers that ask whether a page of another origin may call.
type CORS struct {
	Origins     []StringMatch `json:"origins,omitempty"` // one must match; Present and an exact "*" do
	Methods     []string      `json:"methods,omitempty"` // in the order to be answered, as are the others
	Headers     []string      `json:"headers,omitempty"`
	Expose      []string      `json:"expose,omitempty"`
	MaxAge      *int64        `json:"maxAge,omitempty"` // seconds; nil: not said
	Credentials bool          `json:"credentials,omitempty"`
	// AnswerAll: preflight requests of other origins are answered, without permission,
	// where they would go on to the backend.
	AnswerAll bool `json:"answerAll,omitempty"`
}

// Inbound is what becomes of requests that come in for a workload's port, whoever sent
// them. Tables "inbound/<plane>"; key InboundKey. Nothing in it widens: what
// authorizations deny stays denied.
type Inbound struct {
	Namespace string `json:"namespace"`
	Workload  string `json:"workload"`
	Port      uint16 `json:"port"` // the workload's
	// App is what the port speaks as its plane sees it; AppUndeclared leaves the services'.
	App App `json:"app,omitempty"`
	// Routes, if there are any, are tried in order; a request that none matches gets 404.
	Routes []InboundRoute `json:"routes,omitempty"`
	// RateLimit counts what permissions let in and a route sends on.
	RateLimit *RateLimit `json:"rateLimit,omitempty"`
	Src       []Source   `json:"-"`
}

// InboundKey is the key of a workload's port in the inbound tables.
func InboundKey(namespace, workload string, port uint16) string {
	return FrontendKey(namespace, workload, port)
}

// Key of the row in its table.
func (i *Inbound) Key() string { return InboundKey(i.Namespace, i.Workload, i.Port) }

// InboundRoute is one match, who may take it and what is done.
type InboundRoute struct {
	Match RouteMatch `json:"match"` // without Source fields: who may take it is in Allow
	// Allow: one of the rules must match, or 403; nobody passes without rules. It comes
	// on top of the authorizations, of its own plane too.
	Allow           []AuthRule `json:"allow,omitempty"`
	Redirect        *Redirect  `json:"redirect,omitempty"`
	RequestHeaders  HeaderEdit `json:"requestHeaders,omitzero"`
	ResponseHeaders HeaderEdit `json:"responseHeaders,omitzero"`
	Src             []Source   `json:"-"`
}

// RateLimit bounds the requests to one port of one workload, per second; more get 429.
// All of those that are about a request must have room.
type RateLimit struct {
	Total       uint32              `json:"total,omitempty"`       // of all clients together; 0 = no limit
	PerIdentity uint32              `json:"perIdentity,omitempty"` // of each client that no Override is about; 0 = no limit
	Overrides   []RateLimitOverride `json:"overrides,omitempty"`   // the first that names the client counts
}

// RateLimitOverride is the limit of each of some clients.
type RateLimitOverride struct {
	Identities []string `json:"identities"` // SPIFFE ids, sorted
	PerSecond  uint32   `json:"perSecond"`  // 0 = no limit but the total
}
