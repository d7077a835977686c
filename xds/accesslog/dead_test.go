// SPDX-License-Identifier: Apache-2.0

package accesslog_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	service "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"fairlead.io/fairlead/xds/accesslog"
)

// Nobody reads at all: every worker of Envoy still gets rid of its log at once, and no
// more is kept than was said. Its sends would block if the server waited.
func TestDeadReader(t *testing.T) {
	const kept, workers, messages, each = 16, 4, 100, 250
	s := accesslog.New(kept)
	l := bufconn.Listen(1 << 10) // full at once
	g := grpc.NewServer()
	s.Register(g)
	var server sync.WaitGroup
	server.Go(func() { _ = g.Serve(l) })
	defer server.Wait()
	defer g.Stop()
	conn, err := grpc.NewClient("passthrough:mem", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	entries := make([]*data.HTTPAccessLogEntry, each)
	for i := range entries {
		entries[i] = &data.HTTPAccessLogEntry{Request: &data.HTTPRequestProperties{Path: "/some/path"}}
	}
	m := &service.StreamAccessLogsMessage{LogEntries: &service.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &service.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries},
	}}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			stream, err := service.NewAccessLogServiceClient(conn).StreamAccessLogs(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			for range messages {
				if err := stream.Send(m); err != nil {
					t.Error(err)
					return
				}
			}
			_, _ = stream.CloseAndRecv() // there is no answer: it ends when all was taken
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		t.Fatal("the log is not taken while nobody reads")
	}
	if n, lost := len(s.Records()), s.Lost(); n != kept || lost != workers*messages*each-kept {
		t.Errorf("%d kept, %d lost of %d", n, lost, workers*messages*each)
	}
}
