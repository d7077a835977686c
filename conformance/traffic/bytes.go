// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// overBytes is a connection, or a socket of datagrams, to who echoes.
type overBytes struct {
	net.Conn
	datagrams bool
	n         int
}

func (s Stream) openBytes(ctx context.Context, deadline time.Time) (conversation, error) {
	c, err := dial(ctx, string(s.Kind), s.Addr, deadline)
	if err != nil {
		return nil, err
	}
	return &overBytes{Conn: c, datagrams: s.Kind == UDP}, nil
}

func (c *overBytes) ask(deadline time.Time, _ *Failure) (keep bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return false, err
	}
	c.n++
	text := fmt.Sprintf("message %08d", c.n)
	if _, err := io.WriteString(c, text); err != nil {
		return false, err
	}
	got := make([]byte, len(text))
	if c.datagrams {
		_, err = c.Read(got)
	} else {
		_, err = io.ReadFull(c, got)
	}
	if err == nil && string(got) != text {
		err = fmt.Errorf("%q came back for %q", got, text)
	}
	return err == nil, err
}
