// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// tunnel answers what comes through a tunnel, as if the server were the tunnel's target.
func (e *Echo) tunnel(w http.ResponseWriter, q *http.Request, c net.Conn) {
	control := http.NewResponseController(w)
	in := &tunnelled{Conn: c, r: bufio.NewReader(q.Body), w: w, flush: control.Flush}
	if q.ProtoMajor == 1 && q.Method == http.MethodConnect {
		own, rw, err := control.Hijack()
		if err != nil {
			return
		}
		defer own.Close()
		if _, err := io.WriteString(own, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		in = &tunnelled{Conn: own, r: rw.Reader, w: own, flush: func() error { return nil }}
	} else {
		control.EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		if control.Flush() != nil {
			return
		}
	}
	switch first, err := in.r.Peek(1); {
	case err != nil:
	case first[0] == 0x16:
		e.secure(in, q)
	default:
		e.opaque(in, q)
	}
}

// tunnelled is a connection inside a request; its addresses are those of the connection
// that has the request.
type tunnelled struct {
	net.Conn
	r     *bufio.Reader
	w     io.Writer
	flush func() error
}

func (t *tunnelled) Read(b []byte) (int, error) { return t.r.Read(b) }

func (t *tunnelled) Write(b []byte) (int, error) {
	n, err := t.w.Write(b)
	if err == nil {
		err = t.flush()
	}
	return n, err
}

// Close leaves the connection to who serves it: others may have requests on it.
func (t *tunnelled) Close() error { return nil }
