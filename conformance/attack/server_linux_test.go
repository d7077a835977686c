// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// site is a server that keeps what it gets, byte by byte, and answers whatever looks like the
// end of a request's head: the least careful of servers.
type site struct {
	mu   sync.Mutex
	seen [][]byte // by connection
}

var theSite site

// Serve starts the site.
func (h *Hand) Serve(addr string, _ *None) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go theSite.serve(c)
		}
	}()
	return nil
}

func (s *site) serve(c net.Conn) {
	defer c.Close()
	s.mu.Lock()
	n := len(s.seen)
	s.seen = append(s.seen, nil)
	s.mu.Unlock()
	b := make([]byte, 1<<16)
	for {
		got, err := c.Read(b)
		s.mu.Lock()
		before := bytes.Count(s.seen[n], []byte("\r\n\r\n"))
		s.seen[n] = append(s.seen[n], b[:got]...)
		heads := bytes.Count(s.seen[n], []byte("\r\n\r\n")) - before
		s.mu.Unlock()
		for range heads {
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Seen is what came by each connection.
func (h *Hand) Seen(_ None, out *[][]byte) error {
	theSite.mu.Lock()
	defer theSite.mu.Unlock()
	*out = [][]byte{}
	for _, b := range theSite.seen {
		*out = append(*out, bytes.Clone(b))
	}
	return nil
}

// Raw is bytes for a connection of their own.
type Raw struct {
	To    string
	Bytes []byte
	Wait  time.Duration // for more, after something has come back
}

// Say sends bytes as they are, and is what came back.
func (h *Hand) Say(r Raw, out *[]byte) error {
	c, err := net.DialTimeout("tcp", r.To, 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	*out = []byte{}
	if _, err := c.Write(r.Bytes); err != nil {
		return nil // closed by who would not have it
	}
	b := make([]byte, 1<<16)
	for wait := time.Second; ; wait = r.Wait {
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		n, err := c.Read(b)
		*out = append(*out, b[:n]...)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() || err != nil {
			return nil // what came is the answer
		}
	}
}
