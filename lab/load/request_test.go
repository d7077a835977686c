// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestDoProtocols(t *testing.T) {
	addrs := serve(t, "auto", "tcp", "tcp-banner", "udp", "tls")
	web := addrs[0]
	six := strings.Replace(web, "localhost", "[::1]", 1)
	for _, c := range []struct {
		Request
		protocol string
	}{
		{Request{URL: "http://" + web + "/p?x=1", Headers: map[string]string{"X-A": "b"}, Host: "other", Body: "hi", Method: "POST"}, "HTTP/1.1"},
		{Request{URL: "h2c://" + web + "/p?x=1", Headers: map[string]string{"X-A": "b"}, Host: "other", Body: "hi", Method: "POST"}, "HTTP/2.0"},
		{Request{URL: "http://" + six + "/p?x=1", Protocol: "h2c", Family: "6"}, "HTTP/2.0"},
		{Request{URL: "grpc://" + web + "/a.B/C", Headers: map[string]string{"x-a": "b"}, Host: "other"}, "gRPC"},
		{Request{URL: "ws://" + web + "/ws", Headers: map[string]string{"X-A": "b"}, Host: "other"}, "WebSocket"},
		{Request{URL: "tcp://" + addrs[1]}, "TCP"},
		{Request{URL: "tcp-banner://" + addrs[2]}, "TCP"},
		{Request{URL: "udp://" + addrs[3]}, "UDP"},
		{Request{URL: "tcp://" + addrs[4]}, "TCP"},
		{Request{URL: "tls://" + addrs[4]}, "TLS"},
		{Request{URL: "tls://" + web}, "TLS"},
	} {
		for _, keep := range []bool{false, true} {
			c.KeepAlive, c.Repeat = keep, 2
			got, err := Do(context.Background(), []Request{c.Request})
			if err != nil || len(got) != 2 {
				t.Fatalf("%s: %v %v", c.URL, got, err)
			}
			for i, r := range got {
				if r.Error != "" || r.Remote == "" || r.Local == "" {
					t.Errorf("%s: %+v", c.URL, r)
					continue
				}
				if i > 0 && keep && c.protocol == "WebSocket" {
					if r.Body != "hello" {
						t.Errorf("%s: %+v", c.URL, r)
					}
					continue
				}
				if r.Answer == nil || r.Answer.Protocol != c.protocol || r.Answer.Peer != r.Local {
					t.Errorf("%s: answer %+v of %+v", c.URL, r.Answer, r)
					continue
				}
				if c.Host != "" && (r.Answer.Authority != "other" || r.Answer.Headers["x-a"][0] != "b") {
					t.Errorf("%s: answer %+v", c.URL, r.Answer)
				}
			}
			if same := got[0].Local == got[1].Local; same != keep {
				t.Errorf("%s: keepAlive %v, but sent from %s and %s", c.URL, keep, got[0].Local, got[1].Local)
			}
		}
	}
}

func TestDoOutcomes(t *testing.T) {
	addrs := serve(t, "http", "tcp", "udp")
	web := addrs[0]
	for _, c := range []struct {
		Request
		want string // status, "grpc CODE" or error
	}{
		{Request{URL: "http://" + web + "?status=403"}, "403"},
		{Request{URL: "h2c://" + web + "?status=403"}, "403"},
		{Request{URL: "grpc://" + web, Headers: map[string]string{"x-echo-status": "7"}}, "grpc 7"},
		{Request{URL: "grpc://" + web, Headers: map[string]string{"x-echo-status": "503"}}, "grpc 14"},
		{Request{URL: "http://" + web + "?reset=1"}, "closed"},
		{Request{URL: "http://" + web + "?delay=2s", Timeout: "100ms"}, "timeout"},
		{Request{URL: "grpc://" + web, Headers: map[string]string{"x-echo-delay": "2s"}, Timeout: "100ms"}, "timeout"},
		{Request{URL: "http://127.0.0.1:1"}, "refused"},
		{Request{URL: "grpc://127.0.0.1:1"}, "refused"},
		{Request{URL: "ws://127.0.0.1:1"}, "refused"},
		{Request{URL: "tcp://127.0.0.1:1"}, "refused"},
		{Request{URL: "udp://127.0.0.1:1", Timeout: "200ms"}, "refused"},
		{Request{URL: "http://no.such.name.invalid"}, "dns"},
		{Request{URL: "tcp://" + addrs[1], Body: "xyz"}, "200 xyz"},
		{Request{URL: "udp://" + addrs[2], Body: "xyz"}, "200 xyz"},
	} {
		got, err := Do(context.Background(), []Request{c.Request})
		if err != nil {
			t.Fatal(err)
		}
		r := got[0]
		s := r.Error
		switch {
		case s != "":
		case r.GRPC != nil:
			s = "grpc " + strconv.Itoa(int(*r.GRPC))
		default:
			s = strings.TrimSpace(strconv.Itoa(r.Status) + " " + r.Body)
		}
		if s != c.want {
			t.Errorf("%s: %s, want %s (%s)", c.URL, s, c.want, r.Detail)
		}
	}
}

func TestSourcePort(t *testing.T) {
	addr := serve(t, "http")[0]
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	got, err := Do(context.Background(), []Request{{URL: "http://" + addr, SourcePort: uint16(port), SourceAddress: "127.0.0.1", Family: "4"}})
	if err != nil || got[0].Answer == nil || got[0].Answer.Peer != "127.0.0.1:"+strconv.Itoa(port) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestRequestMain(t *testing.T) {
	addr := serve(t, "http")[0]
	var out, errs bytes.Buffer
	in := `[{"url": "http://` + addr + `/a", "repeat": 2}, {"url": "http://127.0.0.1:1"}]`
	if code := RequestMain(context.Background(), strings.NewReader(in), &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	var got []Result
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != 3 || got[1].Answer.Path != "/a" || got[2].Request != 1 || got[2].Error != "refused" {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "{}", `[{"url": "http://x", "what": 1}]`, `[{"url": "gopher://x"}]`, `[{"url": "tcp://x"}]`, `[{"url": "http://x", "timeout": "soon"}]`} {
		if code := RequestMain(context.Background(), strings.NewReader(bad), &out, &errs); code != exitUsage {
			t.Errorf("%s: exit %d", bad, code)
		}
	}
	out.Reset()
	if code := CallMain(context.Background(), []string{"-4", "--header", "x-a: b", "http://" + addr}, &out, &errs); code != 0 || !strings.Contains(out.String(), `"x-a"`) {
		t.Errorf("call: exit %d: %s%s", code, out.String(), errs.String())
	}
	if code := CallMain(context.Background(), []string{"http://127.0.0.1:1"}, &out, &errs); code != exitFailed {
		t.Errorf("call: exit %d", code)
	}
}

// TestDoForms sends what http.Request does not.
func TestDoForms(t *testing.T) {
	addrs := serve(t, "http", "tls")
	for _, c := range []struct {
		Request
		path, authority, protocol string
	}{
		{Request{URL: "http://" + addrs[0] + "/p", Target: "http://elsewhere:81/q"}, "http://elsewhere:81/q", "elsewhere:81", "HTTP/1.1"},
		{Request{URL: "http10://" + addrs[0] + "/p"}, "/p", "", "HTTP/1.0"},
		{Request{URL: "http10://" + addrs[0] + "/p", Host: "web", Method: "POST", Body: "x"}, "/p", "web", "HTTP/1.0"},
		{Request{URL: "tls://" + addrs[1], Host: "www.example.com"}, "", "www.example.com", "TLS"},
	} {
		got, err := Do(context.Background(), []Request{c.Request})
		if err != nil || len(got) != 1 || got[0].Answer == nil {
			t.Errorf("%+v: %+v, %v", c.Request, got, err)
			continue
		}
		if a := got[0].Answer; a.Path != c.path || a.Authority != c.authority || a.Protocol != c.protocol || a.Body != c.Body {
			t.Errorf("%+v: answer %+v", c.Request, a)
		}
	}
}

func TestDoEvery(t *testing.T) {
	addrs := serve(t, "http")
	begin := time.Now()
	got, err := Do(context.Background(), []Request{{URL: "http://" + addrs[0], Repeat: 4, Every: "50ms", KeepAlive: true}})
	if took := time.Since(begin); err != nil || len(got) != 4 || took < 150*time.Millisecond {
		t.Errorf("%d results in %v: %v", len(got), took, err)
	}
}
