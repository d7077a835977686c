// SPDX-License-Identifier: Apache-2.0

package world

import (
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

func TestParseRequests(t *testing.T) {
	qs, err := ParseRequests(`
# a comment
client GET http://reviews/a?b=1 x-a:1 "x-b:two words" *200 spread
other/client tls://ext.example.com:8443 host=a.example together
client grpc://p/S/M keep
`)
	if err != nil || len(qs) != 3 {
		t.Fatalf("%d, %v", len(qs), err)
	}
	q := qs[0]
	if q.Source != "client" || q.Host != "reviews" || q.Port != 80 || q.Target != "/a?b=1" || q.Authority != "reviews" || q.N != 200 || !q.Spread ||
		len(q.Headers) != 2 || q.Headers[1] != [2]string{"x-b", "two words"} {
		t.Errorf("%+v", q)
	}
	if q := qs[1]; q.Port != 8443 || q.Authority != "a.example" || !q.Together {
		t.Errorf("%+v", q)
	}
	if q := qs[2]; q.Method != "POST" || !q.Keep {
		t.Errorf("%+v", q)
	}
	for _, bad := range []string{"client", "client GET reviews", "client GET tcp://db", "client GET http://a/ *x", "client GET http://a/ huh"} {
		if _, err := ParseRequests(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestWorld(t *testing.T) {
	s, err := FromArchive("s", txtar.Parse([]byte(`about: A b
-- world --
pod default/reviews-v1 10.0.0.99 node=node-2 app=reviews,version=v9
service default/p 10.96.0.30 -:80:8080,x/http:81 app=ratings exportTo=.
no default/db-v2
host ext.example.com 203.0.113.9
-- requests --
client GET http://p/
`)))
	if err != nil {
		t.Fatal(err)
	}
	w := s.World
	if p := w.Pod("reviews-v1"); p.Addr.String() != "10.0.0.99" || p.Node != "node-2" || !w.Meshed(p) || w.Meshed(w.Pod("legacy/client")) {
		t.Errorf("%+v", p)
	}
	for host, want := range map[string]string{"p": "10.96.0.30", "p.default.svc.cluster.local": "10.96.0.30", "api.other": "10.96.0.4",
		"ext.example.com": "203.0.113.9", "web": "10.0.0.71", "10.1.2.3": "10.1.2.3"} {
		if a, err := w.Resolve(host, w.Pod("client")); err != nil || a.String() != want {
			t.Errorf("%s is %s, %v", host, a, err)
		}
	}
	if w.Pod("db-v2") != nil {
		t.Error("db-v2 is still there")
	}
	all := strings.Join(w.Objects(nil), "---\n")
	for _, want := range []string{`exportTo: "."`, `appProtocol: "http"`, "port: 80, targetPort: 8080", "nodeName: node-2"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in the objects", want)
		}
	}
}
