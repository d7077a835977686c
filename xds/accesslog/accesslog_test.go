// SPDX-License-Identifier: Apache-2.0

package accesslog_test

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	service "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"fairlead.io/fairlead/xds/accesslog"
	"fairlead.io/fairlead/xds/render"
)

// send gives entries of requests to a server as Envoy would.
func send(t *testing.T, s *accesslog.Server, entries ...*data.HTTPAccessLogEntry) {
	t.Helper()
	sendMessage(t, s, &service.StreamAccessLogsMessage{LogEntries: &service.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &service.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries},
	}})
}

func sendMessage(t *testing.T, s *accesslog.Server, m *service.StreamAccessLogsMessage) {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	s.Register(g)
	var done sync.WaitGroup
	done.Go(func() { g.Serve(l) })
	defer done.Wait()
	defer g.GracefulStop()
	conn, err := grpc.NewClient("passthrough:mem", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := service.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(m); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndRecv(); err == nil {
		t.Log("the server answered") // it has no answer to give
	}
}

func address(ip string, port uint32) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: ip, PortSpecifier: &core.SocketAddress_PortValue{PortValue: port},
	}}}
}

func TestRecord(t *testing.T) {
	id, err := anypb.New(wrapperspb.String("spiffe://td/ns/a/sa/b"))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := accesslog.New(2)
	send(t, s, &data.HTTPAccessLogEntry{
		ProtocolVersion: data.HTTPAccessLogEntry_HTTP2,
		CommonProperties: &data.AccessLogCommon{
			StartTime:                     timestamppb.New(start),
			DownstreamRemoteAddress:       address("1.2.3.4", 1), // what x-forwarded-for said
			DownstreamDirectRemoteAddress: address("::ffff:10.244.1.5", 4321),
			DownstreamLocalAddress:        address("fd96::1", 80),
			UpstreamRemoteAddress:         address("10.244.2.6", 8080),
			UpstreamCluster:               "shop/web:80",
			RouteName:                     "r1",
			UpstreamRequestAttemptCount:   2,
			FilterStateObjects:            map[string]*anypb.Any{"fl.identity": id},
			TimeToLastDownstreamTxByte:    durationpb.New(7 * time.Millisecond),
			Duration:                      durationpb.New(9 * time.Millisecond),
			ResponseFlags: &data.ResponseFlags{UpstreamConnectionFailure: true, UpstreamRetryLimitExceeded: true,
				UnauthorizedDetails: &data.ResponseFlags_Unauthorized{}},
		},
		Request:  &data.HTTPRequestProperties{RequestMethod: core.RequestMethod_POST, Path: "/a?b", Authority: "web", RequestBodyBytes: 3},
		Response: &data.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(503), ResponseCodeDetails: "via_upstream", ResponseBodyBytes: 5},
	}, &data.HTTPAccessLogEntry{})
	want := accesslog.Record{
		Start: start, Source: netip.MustParseAddrPort("10.244.1.5:4321"), Destination: netip.MustParseAddrPort("[fd96::1]:80"),
		Identity: "spiffe://td/ns/a/sa/b", Protocol: "HTTP2", Method: "POST", Path: "/a?b", Authority: "web",
		Status: 503, Details: "via_upstream", Flags: []string{"UAEX", "UF", "URX"}, Route: "r1", Cluster: "shop/web:80",
		Upstream: netip.MustParseAddrPort("10.244.2.6:8080"), Attempts: 2, RequestBytes: 3, ResponseBytes: 5, Duration: 7 * time.Millisecond,
	}
	if got := <-s.Records(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if empty := <-s.Records(); !reflect.DeepEqual(empty, accesslog.Record{}) {
		t.Errorf("of nothing: %+v", empty)
	}
}

func TestConnectionRecord(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := accesslog.New(1)
	sendMessage(t, s, &service.StreamAccessLogsMessage{LogEntries: &service.StreamAccessLogsMessage_TcpLogs{
		TcpLogs: &service.StreamAccessLogsMessage_TCPAccessLogEntries{LogEntry: []*data.TCPAccessLogEntry{{
			CommonProperties: &data.AccessLogCommon{
				StartTime:                     timestamppb.New(start),
				DownstreamDirectRemoteAddress: address("10.244.1.5", 4321),
				DownstreamLocalAddress:        address("10.96.0.1", 443),
				UpstreamRemoteAddress:         address("10.244.2.6", 8443),
				UpstreamCluster:               "tls|a.example.com|c|10.96.0.1:443",
				CustomTags:                    map[string]string{render.RouteTag: "tls|*.example.com||10.96.0.1:443"},
				TlsProperties:                 &data.TLSProperties{TlsSniHostname: "a.example.com"},
				Duration:                      durationpb.New(time.Minute),
				ResponseFlags:                 &data.ResponseFlags{UpstreamConnectionFailure: true},
			},
			ConnectionProperties: &data.ConnectionProperties{ReceivedBytes: 3, SentBytes: 5},
		}}},
	}})
	want := accesslog.Record{
		Start: start, Connection: true, Source: netip.MustParseAddrPort("10.244.1.5:4321"), Destination: netip.MustParseAddrPort("10.96.0.1:443"),
		ServerName: "a.example.com", Flags: []string{"UF"}, Route: "tls|*.example.com||10.96.0.1:443", Cluster: "tls|a.example.com|c|10.96.0.1:443",
		Upstream: netip.MustParseAddrPort("10.244.2.6:8443"), RequestBytes: 3, ResponseBytes: 5, Duration: time.Minute,
	}
	if got := <-s.Records(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// What filters would have refused that refuse nothing: by a rule that denies, or because none
// allows.
func TestShadow(t *testing.T) {
	entry := func(namespace string, fields map[string]any) *data.HTTPAccessLogEntry {
		of, err := structpb.NewStruct(fields)
		if err != nil {
			t.Fatal(err)
		}
		return &data.HTTPAccessLogEntry{CommonProperties: &data.AccessLogCommon{Metadata: &core.Metadata{FilterMetadata: map[string]*structpb.Struct{namespace: of}}}}
	}
	s := accesslog.New(10)
	send(t, s,
		entry("envoy.filters.http.upstream_rbac", map[string]any{"fl.deny.shadow_engine_result": "denied", "fl.deny.shadow_effective_policy_id": "abc", "fl.allow.0.shadow_engine_result": "denied"}),
		entry("envoy.filters.http.rbac", map[string]any{"fl.deny.shadow_engine_result": "allowed", "fl.allow.0.shadow_engine_result": "denied"}),
		entry("envoy.filters.http.rbac", map[string]any{"fl.allow.0.shadow_engine_result": "allowed", "fl.allow.0.shadow_effective_policy_id": "abc", "enforced_engine_result": "denied"}),
		entry("another", map[string]any{"fl.deny.shadow_engine_result": "denied"}))
	for i, want := range []*accesslog.Denial{{Rule: "abc"}, {}, nil, nil} {
		if got := (<-s.Records()).Would; !reflect.DeepEqual(got, want) {
			t.Errorf("entry %d: %+v, want %+v", i, got, want)
		}
	}
}

// TestSlowReader: Envoy never waits for a reader.
func TestSlowReader(t *testing.T) {
	s := accesslog.New(3)
	entries := make([]*data.HTTPAccessLogEntry, 10)
	for i := range entries {
		entries[i] = &data.HTTPAccessLogEntry{Request: &data.HTTPRequestProperties{Path: "/"}}
	}
	send(t, s, entries...)
	if n, lost := len(s.Records()), s.Lost(); n != 3 || lost != 7 {
		t.Errorf("%d kept, %d lost", n, lost)
	}
}
