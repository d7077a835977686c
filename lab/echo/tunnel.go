// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
)

// tunnel takes what a client would have led on to somebody else for its own. It ends
// with ctx.
func (s *Server) tunnel(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	s.count("")
	a := s.fromRequest(r)
	a.Protocol = "TCP"
	who, err := json.Marshal(a)
	if err != nil {
		return
	}
	who = append(who, '\n')
	control := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		c, rw, err := control.Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		giveBack(c, rw, who)
		return
	}
	w.WriteHeader(http.StatusOK)
	if control.Flush() != nil {
		return
	}
	giveBack(flushed{w, control}, r.Body, who)
}

// flushed holds nothing back.
type flushed struct {
	io.Writer
	control *http.ResponseController
}

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}
