// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// overGRPC is a stream.
type overGRPC struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelFunc
}

func (s Stream) openGRPC(ctx context.Context, deadline time.Time) (conversation, error) {
	conn, err := grpc.NewClient("passthrough:"+s.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
		grpc.WithAuthority(s.Host), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, "tcp", s.Addr, deadline) }))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &overGRPC{conn: conn, cancel: cancel}
	opening := c.until(deadline)
	defer opening()
	if c.stream, err = conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/echo.Echo/Stream"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// until ends the stream at a time, unless what it returns is called before.
func (c *overGRPC) until(deadline time.Time) (stop func()) {
	t := time.AfterFunc(time.Until(deadline), c.cancel)
	return func() { t.Stop() }
}

func (c *overGRPC) ask(deadline time.Time, f *Failure) (keep bool, err error) {
	defer c.until(deadline)()
	if err := c.stream.SendMsg(&wrapperspb.StringValue{Value: "hello"}); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	var got wrapperspb.StringValue
	if err := c.stream.RecvMsg(&got); err != nil {
		return false, err // its status, if the server, or a proxy, has ended it
	}
	return true, nil
}

func (c *overGRPC) Close() error {
	c.cancel()
	return c.conn.Close()
}
