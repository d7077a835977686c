// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"fairlead.io/fairlead/lab/echo"
)

type overHTTP struct {
	net.Conn
	s Stream
	r *bufio.Reader
}

func (s Stream) openHTTP(ctx context.Context, deadline time.Time) (conversation, error) {
	c, err := dial(ctx, "tcp", s.Addr, deadline)
	if err != nil {
		return nil, err
	}
	return &overHTTP{c, s, bufio.NewReader(c)}, nil
}

func dial(ctx context.Context, network, addr string, deadline time.Time) (net.Conn, error) {
	d := net.Dialer{Deadline: deadline}
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, addr)
}

func (c *overHTTP) ask(deadline time.Time, f *Failure) (keep bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return false, err
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nhost: %s\r\ncontent-length: 0\r\n\r\n", c.s.Method, c.s.Path, c.s.Host); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	f.Status = resp.StatusCode
	var a echo.Answer
	if err := json.Unmarshal(body, &a); err == nil {
		f.By = a.Deployment
	} else if errors.As(err, new(*json.SyntaxError)) {
		f.By = string(body[:min(len(body), 60)])
	}
	return !resp.Close, nil
}
