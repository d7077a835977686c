// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// smuggled is a request for what the attacker may not have.
const smuggled = "GET /private/MARK HTTP/1.1\r\nHost: site\r\n\r\n"

// chunked is a body in one chunk.
func chunked(body string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body) }

func get(target string, headers ...string) string {
	return "GET " + target + " HTTP/1.1\r\n" + strings.Join(append([]string{"Host: site"}, headers...), "\r\n") + "\r\n\r\n"
}

func post(body string, headers ...string) string {
	return "POST /public/MARK HTTP/1.1\r\n" + strings.Join(append([]string{"Host: site"}, headers...), "\r\n") + "\r\n\r\n" + body
}

func sized(body string) string { return fmt.Sprintf("Content-Length: %d", len(body)) }

// requests are bytes by which an attacker tries to have /private asked for. MARK stands for
// four characters that are the attempt's own.
var requests = map[string]string{
	"plainly":                              get("/private/MARK"),
	"dot segments":                         get("/public/../private/MARK"),
	"encoded dots":                         get("/public/%2e%2e/private/MARK"),
	"encoded dots, capital":                get("/public/%2E%2E/private/MARK"),
	"dots encoded twice":                   get("/public/%252e%252e/private/MARK"),
	"encoded slash":                        get("/public/..%2fprivate/MARK"),
	"encoded slash and dots":               get("/public/%2e%2e%2fprivate/MARK"),
	"backslash":                            get(`/public/..\private/MARK`),
	"encoded backslash":                    get("/public/..%5cprivate/MARK"),
	"parameter in the segment":             get("/public/..;/private/MARK"),
	"double slash":                         get("//private/MARK"),
	"double slash and dots":                get("/public//..//../private/MARK"),
	"single dots":                          get("/public/./.././private/MARK"),
	"fragment":                             get("/private/MARK#/public/x"),
	"fragment with dots":                   get("/public/#/../../private/MARK"),
	"query that looks like a path":         get("/private/MARK?/public/"),
	"overlong UTF-8":                       get("/public/%c0%ae%c0%ae/private/MARK"),
	"NUL":                                  get("/private/MARK%00/public/"),
	"tab in the path":                      get("/private/MARK\t/public/"),
	"space in the path":                    get("/private/MARK /public/"),
	"path that is not one":                 get("private/MARK"),
	"asterisk":                             strings.Replace(get("*"), "GET", "OPTIONS", 1) + smuggled,
	"absolute form":                        get("http://site/private/MARK"),
	"absolute form with dots":              get("http://site/public/../private/MARK"),
	"absolute form of another host":        get("http://other/private/MARK"),
	"absolute form with user":              get("http://site@other/private/MARK"),
	"absolute form, https":                 get("https://site/private/MARK"),
	"two hosts":                            get("/private/MARK", "Host: other"),
	"host with a path":                     "GET /private/MARK HTTP/1.1\r\nHost: site/public/\r\n\r\n",
	"no host":                              "GET /private/MARK HTTP/1.1\r\n\r\n",
	"HTTP/0.9":                             "GET /private/MARK\r\n",
	"HTTP/1.0 twice":                       "GET /public/MARK HTTP/1.0\r\nHost: site\r\nConnection: keep-alive\r\n\r\n" + smuggled,
	"pipelined":                            get("/public/MARK") + smuggled,
	"other method":                         strings.Replace(get("/private/MARK"), "GET", "PUT", 1),
	"method in small letters":              strings.Replace(get("/private/MARK"), "GET", "get", 1),
	"method that is overridden":            post("", "Content-Length: 0", "X-HTTP-Method-Override: DELETE") + smuggled,
	"CONNECT":                              "CONNECT site:80 HTTP/1.1\r\nHost: site:80\r\n\r\n" + smuggled,
	"CONNECT to the pod":                   "CONNECT 127.0.0.1:8088 HTTP/1.1\r\nHost: 127.0.0.1:8088\r\n\r\n" + smuggled,
	"length and chunks":                    post(chunked("")+smuggled, sized(chunked("")+smuggled), "Transfer-Encoding: chunked"),
	"chunks and length":                    post(chunked(smuggled), "Transfer-Encoding: chunked", "Content-Length: 4"),
	"two lengths":                          post(smuggled, "Content-Length: 0", sized(smuggled)),
	"a list of lengths":                    post(smuggled, "Content-Length: 0, "+fmt.Sprint(len(smuggled))),
	"length with a sign":                   post(smuggled, "Content-Length: +"+fmt.Sprint(len(smuggled))),
	"negative length":                      post(smuggled, "Content-Length: -1"),
	"hexadecimal length":                   post(smuggled, "Content-Length: 0x"+fmt.Sprintf("%x", len(smuggled))),
	"no length":                            post(smuggled),
	"length of a GET":                      get("/public/MARK", sized(smuggled)) + smuggled,
	"space before the colon":               post(chunked("")+smuggled, sized(chunked("")+smuggled), "Transfer-Encoding : chunked"),
	"encoding that is none":                post(chunked("")+smuggled, sized(chunked("")+smuggled), "Transfer-Encoding: xchunked"),
	"two encodings":                        post(chunked("")+smuggled, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
	"encoding after a tab":                 post(chunked("")+smuggled, sized(chunked("")+smuggled), "Transfer-Encoding:\tchunked"),
	"encoding in capitals":                 post(chunked("")+smuggled, sized(chunked("")+smuggled), "TRANSFER-ENCODING: CHUNKED"),
	"encoding that is folded":              post(chunked("")+smuggled, sized(chunked("")+smuggled), "Transfer-Encoding:\r\n chunked"),
	"header that is folded":                post(smuggled, "X-A: b\r\n Content-Length: 0", sized(smuggled)),
	"encoding behind a bare return":        post(chunked("")+smuggled, sized(chunked("")+smuggled), "X-A: b\rTransfer-Encoding: chunked"),
	"lines that end without return":        strings.ReplaceAll(get("/public/MARK", "Content-Length: 0"), "\r\n", "\n") + smuggled,
	"header with a NUL":                    get("/public/MARK", "X-A: b\x00c") + smuggled,
	"header without name":                  get("/public/MARK", ": b") + smuggled,
	"first header begins with a space":     "GET /public/MARK HTTP/1.1\r\n Host: site\r\nHost: site\r\n\r\n" + smuggled,
	"chunk of too large a size":            post("10000000000000000\r\n"+smuggled, "Transfer-Encoding: chunked"),
	"chunk of a size that is none":         post("0x10\r\n"+smuggled, "Transfer-Encoding: chunked"),
	"chunk extension with a bare line end": post("0;a=\n"+smuggled+"\r\n\r\n", "Transfer-Encoding: chunked"),
	"chunks that end without return":       post("0\n\n"+smuggled, "Transfer-Encoding: chunked"),
	"trailers that say who":                post("0\r\nHost: other\r\nContent-Length: 99\r\n\r\n"+smuggled, "Transfer-Encoding: chunked"),
	"expected to go on":                    post(smuggled, "Expect: 100-continue", "Content-Length: 0"),
	"h2c upgrade":                          get("/public/MARK", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA") + http2.ClientPreface + smuggled,
	"upgrade to a tunnel":                  get("/public/MARK", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==") + smuggled,
	"upgrade to what is none":              get("/public/MARK", "Connection: Upgrade", "Upgrade: connect-udp") + smuggled,
	"hop-by-hop headers of ours":           get("/private/MARK", "Connection: x-fl-dst, x-request-id, host"),
	"huge header":                          get("/private/MARK", "X-A: "+strings.Repeat("a", 100_000)),
	"many headers":                         get("/private/MARK", slices.Repeat([]string{"X-A: b"}, 500)...),
	"headers that route":                   get("/private/MARK", "X-Envoy-Original-Path: /public/x", "X-Original-URL: /public/x", "X-Rewrite-URL: /public/x", "X-Forwarded-Path: /public/x", ":path: /public/x"),
}

// by2 are requests of HTTP/2: what stands in the pseudo headers, and others.
var by2 = map[string][][2]string{
	allowed2:                   {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}},
	"h2: plainly":              {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/private/MARK"}},
	"h2: dot segments":         {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/../private/MARK"}},
	"h2: two paths":            {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}, {":path", "/private/MARK"}},
	"h2: path after headers":   {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {"x-a", "b"}, {":path", "/private/MARK"}},
	"h2: no path":              {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {"x-path", "/private/MARK"}},
	"h2: line end in a path":   {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/x HTTP/1.1\r\nHost: site\r\n\r\nGET /private/MARK"}},
	"h2: line end in a value":  {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}, {"x-a", "b\r\n\r\nGET /private/MARK HTTP/1.1\r\nHost: site"}},
	"h2: line end in a name":   {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}, {"x-a: b\r\n\r\nGET /private/MARK HTTP/1.1\r\nx", "y"}},
	"h2: line end in method":   {{":method", "GET /private/MARK HTTP/1.1\r\nHost: site\r\n\r\nGET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}},
	"h2: chunked":              {{":method", "POST"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}, {"transfer-encoding", "chunked"}},
	"h2: length":               {{":method", "POST"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}, {"content-length", "0"}},
	"h2: connection":           {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/public/MARK"}, {"connection", "upgrade"}, {"upgrade", "h2c"}},
	"h2: CONNECT":              {{":method", "CONNECT"}, {":authority", "site:80"}},
	"h2: CONNECT for a tunnel": {{":method", "CONNECT"}, {":protocol", "connect-udp"}, {":scheme", "http"}, {":authority", "site"}, {":path", "/private/MARK"}},
	"h2: two authorities":      {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {"host", "other"}, {":path", "/private/MARK"}},
	"h2: absolute path":        {{":method", "GET"}, {":scheme", "http"}, {":authority", "site"}, {":path", "http://site/private/MARK"}},
}

// allowed2 is no attempt: it shows that a request of HTTP/2 gets through.
const allowed2 = "h2: what is allowed"

// frames writes a request of HTTP/2 whose body is a smuggled one.
func frames(headers [][2]string, mark string) string {
	var head, out bytes.Buffer
	e := hpack.NewEncoder(&head)
	for _, h := range headers {
		_ = e.WriteField(hpack.HeaderField{Name: strings.ReplaceAll(h[0], "MARK", mark), Value: strings.ReplaceAll(h[1], "MARK", mark)}) // a buffer takes all
	}
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	_ = errors.Join(f.WriteSettings(),
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}),
		f.WriteData(1, true, []byte(strings.ReplaceAll(smuggled, "MARK", mark))))
	return out.String()
}

// TestRequests sends each attempt to the service and to its pod, from both nodes. The site sees
// no request but for what is below /public/, read in whichever way, and none that two servers
// may read differently.
func TestRequests(t *testing.T) {
	r := attacked(t)
	r.serveSite(t)
	names := slices.Sorted(maps.Keys(requests))
	names = append(names, slices.Sorted(maps.Keys(by2))...)
	if len(r.services["site"]) == 0 {
		t.Fatal("the service has no address")
	}
	targets := map[string]string{
		"service": at(r.services["site"][0], 80).String(),
		"pod":     at(r.pods["site"].v4, 8088).String(),
		"pod, v6": at(r.pods["site"].v6, 8088).String(),
	}
	for where, to := range targets {
		for _, attacker := range []string{"attacker-1", "attacker-2"} {
			before := len(call[[][]byte](t, r.hands["site"], "Seen", None{}))
			mark := fmt.Sprintf("ok-%s-%s", strings.ReplaceAll(where, ", ", "-"), attacker)
			answer := call[[]byte](t, r.hands[attacker], "Say", Raw{To: to, Bytes: []byte(get("/public/" + mark)), Wait: 10 * time.Millisecond})
			if seen := call[[][]byte](t, r.hands["site"], "Seen", None{}); !bytes.Contains(bytes.Join(seen, nil), []byte("GET /public/"+mark)) {
				t.Fatalf("%s by %s: what is allowed does not arrive: %q", where, attacker, answer)
			}
			for i, name := range names {
				mark := fmt.Sprintf("m%03d", i)
				text := strings.ReplaceAll(requests[name], "MARK", mark)
				if headers, is := by2[name]; is {
					text = frames(headers, mark)
				}
				answer := call[[]byte](t, r.hands[attacker], "Say", Raw{To: to, Bytes: []byte(text), Wait: 20 * time.Millisecond})
				t.Logf("%s by %s: %s %s: %.60q", where, attacker, mark, name, answered(answer))
			}
			time.Sleep(200 * time.Millisecond)
			seen := call[[][]byte](t, r.hands["site"], "Seen", None{})[before:]
			if !bytes.Contains(bytes.Join(seen, nil), fmt.Appendf(nil, "GET /public/m%03d ", slices.Index(names, allowed2))) {
				t.Errorf("%s by %s: what is allowed by HTTP/2 does not arrive", where, attacker)
			}
			for _, stream := range seen {
				for _, why := range judge(stream) {
					t.Errorf("%s by %s: the site sees %s", where, attacker, why)
				}
			}
		}
	}
}

// answered is the first line of an answer, or the status of HTTP/2's.
func answered(b []byte) string {
	f := http2.NewFramer(nil, bytes.NewReader(b))
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if bytes.HasPrefix(b, []byte("HTTP/")) {
		line, _, _ := bytes.Cut(b, []byte("\r\n"))
		return string(line)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "nothing"
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return "gone, " + frame.ErrCode.String()
		}
	}
}

// judge reads what came by a connection, and says what should not have.
func judge(stream []byte) []string {
	var out []string
	if bytes.HasPrefix(stream, []byte(http2.ClientPreface)) {
		return []string{"HTTP/2"}
	}
	all := bytes.NewReader(stream)
	br := bufio.NewReader(all)
	for {
		rest := stream[len(stream)-all.Len()-br.Buffered():]
		req, err := http.ReadRequest(br)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			return append(out, fmt.Sprintf("what is no request: %v: %.300q", err, rest))
		}
		// The path is decoded; some servers take a backslash for a slash.
		for _, p := range []string{req.URL.Path, strings.ReplaceAll(req.URL.Path, `\`, "/")} {
			if !strings.HasPrefix(path.Clean(p), "/public") || !strings.HasPrefix(p, "/public") {
				out = append(out, fmt.Sprintf("%s %s", req.Method, req.RequestURI))
				break
			}
		}
		if req.Method != http.MethodGet && req.Method != http.MethodPost {
			out = append(out, "method "+req.Method)
		}
		// What http.ReadRequest forgives, and other servers read in their own way.
		raw, _, _ := bytes.Cut(rest, []byte("\r\n\r\n"))
		text := strings.ToLower(string(raw))
		if n := strings.Count(text, "\r\ncontent-length:") + strings.Count(text, "\r\ntransfer-encoding:"); n > 1 {
			out = append(out, fmt.Sprintf("%d lengths: %q", n, raw))
		}
		if n := strings.Count(text, "\r\nhost:"); n != 1 {
			out = append(out, fmt.Sprintf("%d hosts: %q", n, raw))
		}
		if strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n\x00") {
			out = append(out, fmt.Sprintf("a line that ends halfway: %q", raw))
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			out = append(out, fmt.Sprintf("a body that ends badly: %v", err))
		}
	}
}

// Every way of reading that judge has finds what it is for.
func TestJudge(t *testing.T) {
	for stream, want := range map[string]string{
		get("/public/x") + get("/public/y"):                         "",
		get("/private/x"):                                           "GET /private/x",
		get("/public/%2e%2e/private/x"):                             "GET /public/%2e%2e/private/x",
		get(`/public/..\private/x`):                                 `GET /public/..\private/x`,
		get("/public/x") + smuggled:                                 "GET /private/MARK",
		post(smuggled, "Content-Length: 0"):                         "GET /private/MARK",
		post("", "Content-Length: 0", "Transfer-Encoding: chunked"): "2 lengths",
		get("/public/x", "Host: other"):                             "request",
		get("/public/x", "X-A: b\n c"):                              "a line that ends halfway",
		strings.Replace(get("/public/x"), "GET", "PUT", 1):          "method PUT",
		http2.ClientPreface:                                         "HTTP/2",
		"no request at all\r\n\r\n":                                 "what is no request",
	} {
		got := strings.Join(judge([]byte(stream)), "; ")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", stream, got, want)
		}
	}
}
