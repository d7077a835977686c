// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

// A proxy that comes back says what it has, in one message.
func TestFeedTakesAProxyThatHasMuch(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveGRPC(ctx, socket, -1, serve.New(serve.Options{}, nil).Register) }()
	conn, err := grpc.NewClient("unix:"+socket, append(serve.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	has := map[string]string{}
	for i := range 100_000 {
		has[fmt.Sprintf("shop/service-number-%06d:8080", i)] = "0123456789abcdef"
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{
		TypeUrl: xds.ClusterType, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: has,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
}
