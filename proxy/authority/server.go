// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/xds/render"
)

// Counters only grow.
type Counters struct {
	Checks   uint64 `json:"checks"` // questions that were answered
	Resolved uint64 `json:"resolved"`
	Passed   uint64 `json:"passed"`
	Refused  uint64 `json:"refused"` // unknown, or not there for the client's family
}

// Server answers Envoy. It is safe for concurrent use.
type Server struct {
	auth.UnimplementedAuthorizationServer
	index *Index
	ready func() bool

	resolved, passed, refused atomic.Uint64
}

// NewServer makes a server that answers from an index. While ready says no, it
// answers that it is not available, which Envoy retries: the index is not all of the
// configuration yet, and what is not in it is not unknown.
func NewServer(index *Index, ready func() bool) *Server {
	return &Server{index: index, ready: ready}
}

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) { auth.RegisterAuthorizationServer(g, s) }

// Counters returns the counters of now.
func (s *Server) Counters() Counters {
	c := Counters{Resolved: s.resolved.Load(), Passed: s.passed.Load(), Refused: s.refused.Load()}
	c.Checks = c.Resolved + c.Passed + c.Refused
	return c
}

// Check answers one question.
func (s *Server) Check(ctx context.Context, r *auth.CheckRequest) (*auth.CheckResponse, error) {
	if len(r.GetAttributes().GetContextExtensions()) == 0 {
		return own, nil
	}
	if !s.ready() {
		return nil, status.Error(codes.Unavailable, "waiting for the configuration")
	}
	q, err := query(r.GetAttributes())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if ids := metadata.ValueFromIncomingContext(ctx, render.ClientMetadata); len(ids) == 1 {
		q.Client = ids[0]
	}
	key, outcome := s.index.Resolve(q)
	switch outcome {
	case Resolved:
		s.resolved.Add(1)
		return lead(key), nil
	case Passed:
		s.passed.Add(1)
		return lead(key), nil
	case Unreachable:
		s.refused.Add(1)
		return unreachable, nil
	default:
		s.refused.Add(1)
		return unknown, nil
	}
}

// query reads what Envoy tells. All but the host is of our own making.
func query(a *auth.AttributeContext) (Query, error) {
	q := Query{Host: a.GetRequest().GetHttp().GetHost()}
	said := a.GetContextExtensions()
	var err error
	if q.Port, err = parsePort(said[render.PortExtension]); err != nil {
		return Query{}, fmt.Errorf("read the frontend's port: %w", err)
	}
	q.Unknown = model.Unknown(said[render.UnknownExtension])
	dst := a.GetDestination().GetAddress().GetSocketAddress()
	addr, err := netip.ParseAddr(dst.GetAddress())
	if err != nil {
		return Query{}, errors.New("the destination is no address")
	}
	q.Destination = netip.AddrPortFrom(addr, uint16(dst.GetPortValue()))
	return q, nil
}

// own lets a request be that asks because its table was not loaded yet when Envoy made
// its chain of filters, and whose host turned out to be the frontend's own.
var own = &auth.CheckResponse{
	Status:       &rpcstatus.Status{},
	HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}},
}

// lead has Envoy look for routes again, with another key.
func lead(key string) *auth.CheckResponse {
	return &auth.CheckResponse{
		Status: &rpcstatus.Status{},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{Headers: []*core.HeaderValueOption{{
			Header:       &core.HeaderValue{Key: render.DestinationHeader, Value: key},
			AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}}}},
	}
}

// What requests are refused with. What they asked for is not repeated.
var (
	unknown     = refuse("no service has this host at this port\n")
	unreachable = refuse("the service of this host has no address of the client's family\n")
)

func refuse(body string) *auth.CheckResponse {
	return &auth.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode_BadGateway},
			Body:   body,
		}},
	}
}
