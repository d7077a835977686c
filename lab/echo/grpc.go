// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// grpcHandler answers every method of every service, but for health checks, which
// are answered as such.
func (s *Server) grpcHandler() http.Handler {
	srv := grpc.NewServer(grpc.ForceServerCodecV2(anyCodec{encoding.GetCodecV2(proto.Name)}), grpc.UnknownServiceHandler(s.call))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	return srv
}

// call answers each message of the client with one, whatever is in it.
func (s *Server) call(_ any, stream grpc.ServerStream) error {
	ctx := stream.Context()
	method, _ := grpc.MethodFromServerStream(stream)
	md, _ := metadata.FromIncomingContext(ctx)
	a := &Answer{Facts: s.facts, Protocol: "gRPC", Method: http.MethodPost, Path: method, Headers: map[string][]string{}}
	for k, v := range md {
		a.Headers[k] = v
	}
	if v := md.Get(":authority"); len(v) > 0 {
		a.Authority = v[0]
		delete(a.Headers, ":authority")
	}
	if p, ok := peer.FromContext(ctx); ok {
		a.Peer = unmap(p.Addr.String())
		if p.LocalAddr != nil {
			a.Local = unmap(p.LocalAddr.String())
		}
	}
	header := func(name string) string { return strings.Join(md.Get(name), ",") }
	o, err := s.outcome(wish{url.Values{}, header})
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	a.Count, a.Pad = o.count, strings.Repeat("x", o.size)
	if !pause(ctx, o.delay) {
		return status.FromContextError(ctx.Err()).Err()
	}
	if o.status != 0 {
		return status.Error(grpcCode(o.status), fmt.Sprintf("status %d was asked for", o.status))
	}
	b, err := json.Marshal(a)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	for {
		var in raw
		switch err := stream.RecvMsg(&in); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := stream.SendMsg(wrapperspb.String(string(b))); err != nil {
			return err
		}
	}
}

// grpcCode takes gRPC's own codes as they are, and of HTTP's the one that matters
// to retries.
func grpcCode(n int) codes.Code {
	switch {
	case n <= int(codes.Unauthenticated):
		return codes.Code(n)
	case n == http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Unknown
}

// raw is a message that nobody looks into.
type raw []byte

// anyCodec takes raw messages besides those of its base.
type anyCodec struct{ encoding.CodecV2 }

func (c anyCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*raw); ok {
		*r = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
