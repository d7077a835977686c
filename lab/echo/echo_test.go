// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves one port of a kind and returns its number.
func start(t *testing.T, kind string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := New(Facts{Pod: "p1", Namespace: "ns"}, slog.New(slog.DiscardHandler))
	go func() { done <- s.Run(ctx, Port{n, kind}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	port := strconv.Itoa(int(n))
	for range 200 {
		if answers(kind, "127.0.0.1:"+port) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return port
}

func answers(kind, addr string) bool {
	if kind != "udp" {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	c, err := net.Dial("udp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_, werr := c.Write([]byte("who"))
	derr := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, rerr := c.Read(make([]byte, 1000))
	return errors.Join(werr, derr, rerr) == nil
}

func post(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, Answer) {
	t.Helper()
	r, err := http.NewRequest("POST", url, strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a Answer
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatalf("%s: %s", resp.Status, b)
	}
	return resp, a
}

func client(t *testing.T, h2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestHTTP(t *testing.T) {
	for _, kind := range []string{"http", "auto"} {
		port := start(t, kind)
		for _, h2 := range []bool{false, true} {
			for _, host := range []string{"127.0.0.1", "[::1]"} {
				resp, a := post(t, client(t, h2), "http://"+host+":"+port+"/a/b?x=1&status=418&header=x-a:b", "X-Mine", "1")
				if resp.StatusCode != 418 || resp.Header.Get("x-a") != "b" || resp.Header.Get("x-echo-pod") != "p1" {
					t.Errorf("%s: %s %v", kind, resp.Status, resp.Header)
				}
				proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
				if a.Pod != "p1" || a.Protocol != proto || a.Method != "POST" || a.Path != "/a/b?x=1&status=418&header=x-a:b" ||
					a.Authority != host+":"+port || a.Body != "hello" || a.Headers["x-mine"][0] != "1" || !strings.HasPrefix(a.Peer, host+":") || a.Local != host+":"+port {
					t.Errorf("%s: %+v", kind, a)
				}
			}
		}
	}
}

func TestWishes(t *testing.T) {
	port := start(t, "http")
	c, base := client(t, false), "http://127.0.0.1:"+port
	var got []int
	for range 3 {
		resp, _ := post(t, c, base, "X-Echo-Key", "k", "X-Echo-Fail", "2")
		got = append(got, resp.StatusCode)
	}
	for range 2 {
		resp, _ := post(t, c, base+"?key=l&fail=1&status=429")
		got = append(got, resp.StatusCode)
	}
	if got[0] != 503 || got[1] != 503 || got[2] != 200 || got[3] != 429 || got[4] != 200 {
		t.Errorf("fail: %v", got)
	}
	begin := time.Now()
	if _, a := post(t, c, base+"?delay=100ms&size=10"); a.Pad != "xxxxxxxxxx" || time.Since(begin) < 100*time.Millisecond {
		t.Errorf("pad %q after %v", a.Pad, time.Since(begin))
	}
	r, err := c.Get(base + "?size=-1")
	if err != nil || r.StatusCode != 400 {
		t.Fatalf("bad wish: %v %v", r, err)
	}
	r.Body.Close()
	if r, err := c.Post(base+"?reset=1", "", nil); err == nil {
		r.Body.Close()
		t.Error("an answer came in spite of reset")
	}
	for key, want := range map[string]uint64{"k": 3, "l": 2, "": 8, "other": 0} {
		r, err := c.Get(base + "/count?key=" + key)
		if err != nil {
			t.Fatal(err)
		}
		var n Count
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil || n.Count != want || n.Pod != "p1" {
			t.Errorf("count of %q: %+v %v, want %d", key, n, err, want)
		}
		r.Body.Close()
	}
}

func TestGRPC(t *testing.T) {
	port := start(t, "http")
	conn, err := grpc.NewClient("127.0.0.1:"+port, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := context.Background()
	var out wrapperspb.StringValue
	if err := conn.Invoke(ctx, "/any.Service/Method", &emptypb.Empty{}, &out); err != nil {
		t.Fatal(err)
	}
	var a Answer
	if err := json.Unmarshal([]byte(out.Value), &a); err != nil || a.Path != "/any.Service/Method" || a.Protocol != "gRPC" || a.Pod != "p1" || a.Authority != "127.0.0.1:"+port || a.Peer == "" {
		t.Errorf("%+v %v", a, err)
	}
	for in, want := range map[string]codes.Code{"7": codes.PermissionDenied, "503": codes.Unavailable} {
		err = conn.Invoke(metadata.AppendToOutgoingContext(ctx, "x-echo-status", in), "/any.Service/Method", &emptypb.Empty{}, &out)
		if status.Code(err) != want {
			t.Errorf("status %s: %v", in, err)
		}
	}
	if err := conn.Invoke(metadata.AppendToOutgoingContext(ctx, "x-echo-reset", "1"), "/any.Service/Method", &emptypb.Empty{}, &out); err == nil {
		t.Error("an answer came in spite of reset")
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/any.Service/Stream")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&out); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&out); !errors.Is(err, io.EOF) {
		t.Errorf("end of stream: %v", err)
	}
	h, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", h, err)
	}
}

func TestWebSocket(t *testing.T) {
	port := start(t, "auto")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://127.0.0.1:"+port+"/ws", &websocket.DialOptions{HTTPClient: client(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	_, b, err := c.Read(ctx)
	if err != nil || !bytes.Contains(b, []byte(`"protocol":"WebSocket"`)) {
		t.Fatalf("%s %v", b, err)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, b, err = c.Read(ctx); err != nil || string(b) != "hi" {
		t.Errorf("%s %v", b, err)
	}
}

// dial connects with a deadline.
func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTCP(t *testing.T) {
	for _, kind := range []string{"tcp", "auto", "tcp-banner"} {
		c := dial(t, "tcp", "127.0.0.1:"+start(t, kind))
		r := bufio.NewReader(c)
		if kind == "tcp-banner" {
			if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, `"pod":"p1"`) {
				t.Errorf("banner %q %v", line, err)
			}
		}
		b := make([]byte, 3)
		if _, err := c.Write([]byte("POX")); err != nil { // begins as a method does
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, b); err != nil || string(b) != "POX" {
			t.Errorf("%s: %q %v", kind, b, err)
		}
		if _, err := c.Write([]byte("who\n")); err != nil {
			t.Fatal(err)
		}
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, `"protocol":"TCP"`) {
			t.Errorf("%s: who: %q %v", kind, line, err)
		}
	}
}

func TestUDP(t *testing.T) {
	port := start(t, "udp")
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "[::1]"} { // an answer from another address does not arrive
		c := dial(t, "udp", host+":"+port)
		buf := make([]byte, 1000)
		for msg, want := range map[string]string{"hello": "hello", "who": `"local":"` + host + ":" + port + `"`} {
			if _, err := c.Write([]byte(msg)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(buf); err != nil || !strings.Contains(string(buf[:n]), want) {
				t.Errorf("%s: %s: %q %v", host, msg, buf[:n], err)
			}
		}
	}
}

// Requests that have begun may finish when the server ends.
func TestDrain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := New(Facts{}, slog.New(slog.DiscardHandler))
	go func() { done <- s.Run(ctx, Port{n, "auto"}) }()
	time.AfterFunc(300*time.Millisecond, cancel)
	time.Sleep(100 * time.Millisecond)
	if resp, _ := post(t, client(t, false), "http://127.0.0.1:"+strconv.Itoa(int(n))+"?delay=600ms"); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]Port{"80": {80, "auto"}, "53=udp": {53, "udp"}, "0": {}, "80=x": {}, "99999": {}, "": {}} {
		if got, err := ParsePort(in); got != want || (err == nil) != (want != Port{}) {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
}

// The server stands for whatever target a tunnel asks for.
func TestTunnel(t *testing.T) {
	port := start(t, "http")
	ask := func(w io.Writer, r *bufio.Reader) {
		t.Helper()
		io.WriteString(w, "who")
		line, err := r.ReadBytes('\n')
		var a Answer
		if jerr := json.Unmarshal(line, &a); err != nil || jerr != nil || a.Protocol != "TCP" || a.Method != "CONNECT" || a.Authority != "db.example.com:5432" {
			t.Errorf("%s %v: %+v", line, err, a)
		}
	}
	in, out := io.Pipe()
	r, err := http.NewRequest(http.MethodConnect, "http://127.0.0.1:"+port, in)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "db.example.com:5432"
	resp, err := client(t, true).Transport.RoundTrip(r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	ask(out, bufio.NewReader(resp.Body))
	out.Close()
	resp.Body.Close()

	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "CONNECT db.example.com:5432 HTTP/1.1\r\nHost: db.example.com:5432\r\n\r\n")
	answer := bufio.NewReader(c)
	if resp, err = http.ReadResponse(answer, &http.Request{Method: http.MethodConnect}); err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	ask(c, answer)
}
