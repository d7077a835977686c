// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"io"
	"net"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec, if istiod's own is not there
	"google.golang.org/grpc/peer"
)

// stream is a server's end of the delta protocol, without a transport: what is sent is
// encoded and counted, and taken by a client at once.
type stream struct {
	grpc.ServerStream // has just Context
	ctx               context.Context
	requests          chan *discovery.DeltaDiscoveryRequest
	take              func(*discovery.DeltaDiscoveryResponse) // a client's reaction, which acknowledges
	ended             chan struct{}

	mu    sync.Mutex
	bytes int
	sent  map[string]int // responses by type
}

// connect has a server serve a client, until the function that is returned is called.
func connect(serve func(discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error, take func(*stream, *discovery.DeltaDiscoveryResponse)) (s *stream, disconnect func()) {
	ctx, cancel := context.WithCancel(peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}}))
	// As many requests as a client may send before the server's reader takes one.
	s = &stream{ctx: ctx, requests: make(chan *discovery.DeltaDiscoveryRequest, 1024), ended: make(chan struct{}), sent: map[string]int{}}
	s.take = func(r *discovery.DeltaDiscoveryResponse) { take(s, r) }
	go func() {
		defer close(s.ended)
		if err := serve(s); err != nil && ctx.Err() == nil {
			panic(err) // nobody could go on
		}
	}()
	return s, func() { cancel(); <-s.ended }
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }

// Send counts and delivers a response.
func (s *stream) Send(r *discovery.DeltaDiscoveryResponse) error {
	data, err := encoding.GetCodecV2("proto").Marshal(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.bytes += data.Len()
	s.sent[r.TypeUrl]++
	s.mu.Unlock()
	data.Free()
	s.take(r)
	return nil
}

// Recv waits for the client's next request.
func (s *stream) Recv() (*discovery.DeltaDiscoveryRequest, error) {
	select {
	case r := <-s.requests:
		return r, nil
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

// request is the client's.
func (s *stream) request(r *discovery.DeltaDiscoveryRequest) { s.requests <- r }

func (s *stream) ack(r *discovery.DeltaDiscoveryResponse) {
	s.request(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
}

// count returns what was sent since the last call.
func (s *stream) count() (bytes int, sent map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes, sent = s.bytes, s.sent
	s.bytes, s.sent = 0, map[string]int{}
	return bytes, sent
}
