// SPDX-License-Identifier: Apache-2.0

// Package accesslog takes Envoy's access log of requests and of connections that it
// does not read (gRPC ALS) and turns its entries into records.
package accesslog

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	service "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/xds/render"
)

// Record is one request as Envoy saw it, or one connection, when it has ended. Fields
// that Envoy did not know are zero.
type Record struct {
	Start time.Time `json:"start"` // first byte of the request; of a connection, its begin
	// Connection says that it is of one; what only requests have is zero.
	Connection bool `json:"connection,omitempty"`
	// Source is the peer of the connection, whatever x-forwarded-for says.
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"` // as the client had dialled it
	Identity    string         `json:"identity,omitempty"`
	ServerName  string         `json:"serverName,omitempty"` // that a client of TLS asked for

	Protocol  string `json:"protocol,omitempty"` // "HTTP11", "HTTP2"
	Method    string `json:"method"`
	Path      string `json:"path"` // as rewritten, which is what policy judged; with the query
	Authority string `json:"authority"`

	Status uint32 `json:"status"` // 0: no answer
	// Details says who made the answer: "via_upstream", or
	// "rbac_access_denied_matched_policy[<rule>]" with the rule's id or "none".
	Details string `json:"details,omitempty"`
	// Would is what a policy would have done that is not enforced; nil: nothing.
	Would *Denial  `json:"would,omitempty"`
	Flags []string `json:"flags,omitempty"` // Envoy's short words: "UF", "UO", "NR"

	Route    string         `json:"route,omitempty"` // id of the Origin that decided
	Cluster  string         `json:"cluster,omitempty"`
	Upstream netip.AddrPort `json:"upstream"` // endpoint that was chosen
	Attempts uint32         `json:"attempts,omitempty"`

	RequestBytes  uint64        `json:"requestBytes"`  // from the client: of the body, or all
	ResponseBytes uint64        `json:"responseBytes"` // to it
	Duration      time.Duration `json:"duration"`      // to the last byte of the answer
}

// Denial is what a policy refuses.
type Denial struct {
	Rule string `json:"rule,omitempty"` // id of the one that denies; "": none allows
}

// Server takes access logs and hands records on by a channel. It never makes
// Envoy wait: what the reader is too slow for is counted and lost.
type Server struct {
	service.UnimplementedAccessLogServiceServer
	out  chan Record
	lost atomic.Uint64
}

// New makes a server that keeps up to buffer records for a slow reader.
func New(buffer int) *Server { return &Server{out: make(chan Record, buffer)} }

// Records is where records come out, in each connection's order. It is never
// closed.
func (s *Server) Records() <-chan Record { return s.out }

// Lost is how many records nobody read in time.
func (s *Server) Lost() uint64 { return s.lost.Load() }

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) { service.RegisterAccessLogServiceServer(g, s) }

// StreamAccessLogs takes one worker's log until Envoy leaves.
func (s *Server) StreamAccessLogs(stream service.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			s.put(request(e))
		}
		for _, e := range m.GetTcpLogs().GetLogEntry() {
			s.put(connection(e))
		}
	}
}

func (s *Server) put(r Record) {
	select {
	case s.out <- r:
	default:
		s.lost.Add(1)
	}
}

func request(e *data.HTTPAccessLogEntry) Record {
	c, req, resp := e.GetCommonProperties(), e.GetRequest(), e.GetResponse()
	r := common(c)
	r.Path, r.Authority = req.GetPath(), req.GetAuthority()
	r.Status, r.Details = resp.GetResponseCode().GetValue(), resp.GetResponseCodeDetails()
	r.Route = c.GetRouteName()
	r.Would = shadowed(c.GetMetadata())
	r.Attempts = c.GetUpstreamRequestAttemptCount()
	r.RequestBytes, r.ResponseBytes = req.GetRequestBodyBytes(), resp.GetResponseBodyBytes()
	if m := req.GetRequestMethod(); m != core.RequestMethod_METHOD_UNSPECIFIED {
		r.Method = m.String()
	}
	if v := e.GetProtocolVersion(); v != data.HTTPAccessLogEntry_PROTOCOL_UNSPECIFIED {
		r.Protocol = v.String()
	}
	return r
}

// shadowed reads what filters would have refused: of the first that denies by a rule, or
// else that no rule allows.
func shadowed(m *core.Metadata) *Denial {
	var out *Denial
	for _, ns := range render.ShadowNamespaces() {
		of := m.GetFilterMetadata()[ns].GetFields()
		for key, v := range of {
			filter, ok := strings.CutSuffix(key, render.ShadowResult)
			if !ok || v.GetStringValue() != render.ShadowDenied {
				continue
			}
			d := &Denial{of[filter+render.ShadowRule].GetStringValue()}
			if out == nil || d.Rule > out.Rule { // at most one filter denies by rules
				out = d
			}
		}
	}
	return out
}

func connection(e *data.TCPAccessLogEntry) Record {
	c, p := e.GetCommonProperties(), e.GetConnectionProperties()
	r := common(c)
	r.Connection = true
	r.Route = c.GetCustomTags()[render.RouteTag]
	r.RequestBytes, r.ResponseBytes = p.GetReceivedBytes(), p.GetSentBytes()
	return r
}

func common(c *data.AccessLogCommon) Record {
	r := Record{
		Source:      addrPort(c.GetDownstreamDirectRemoteAddress()),
		Destination: addrPort(c.GetDownstreamLocalAddress()),
		ServerName:  c.GetTlsProperties().GetTlsSniHostname(),
		Flags:       flags(c.GetResponseFlags()),
		Cluster:     c.GetUpstreamCluster(),
		Upstream:    addrPort(c.GetUpstreamRemoteAddress()),
		Duration:    duration(c),
	}
	if t := c.GetStartTime(); t != nil {
		r.Start = t.AsTime()
	}
	if id := c.GetFilterStateObjects()[render.IdentityKey]; id != nil {
		var s wrapperspb.StringValue
		if id.UnmarshalTo(&s) == nil {
			r.Identity = s.GetValue()
		}
	}
	return r
}

// duration is to the last byte that went to the client, or as far as it came.
func duration(c *data.AccessLogCommon) time.Duration {
	for _, d := range []*durationpb.Duration{c.GetTimeToLastDownstreamTxByte(), c.GetDuration()} {
		if d != nil {
			return d.AsDuration()
		}
	}
	return 0
}

func addrPort(a *core.Address) netip.AddrPort {
	s := a.GetSocketAddress()
	ip, err := netip.ParseAddr(s.GetAddress())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(s.GetPortValue()))
}
