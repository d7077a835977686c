// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"strings"
	"testing"
)

func TestParseHost(t *testing.T) {
	long := strings.Repeat("a234567890.", 23) // 253 bytes
	for sent, want := range map[string]string{
		"api.shop":             "api.shop",
		"API.Shop":             "api.shop",
		"api.shop:80":          "api.shop",
		"api.shop:":            "api.shop",
		"api.shop.":            "api.shop",
		"api.shop.:80":         "api.shop",
		"api_1.shop":           "api_1.shop",
		"api":                  "api",
		"10.96.0.7":            "10.96.0.7",
		"10.96.0.7:8080":       "10.96.0.7",
		"[fd96::7]":            "[fd96::7]",
		"[fd96::7]:80":         "[fd96::7]",
		"[FD96:0:0::7]:80":     "[fd96::7]",
		"[::ffff:10.96.0.7]":   "[::ffff:10.96.0.7]",
		long[:253]:             long[:252], // a dot at the end
		long[:252] + "a:65535": long[:252] + "a",

		"":                         "",
		".":                        "",
		":":                        "",
		":80":                      "",
		"..":                       "",
		"api..shop":                "",
		".shop":                    "",
		"api.shop..":               "",
		"api.shop:http":            "",
		"api.shop:80:80":           "",
		"fd96::7":                  "",
		"[fd96::7":                 "",
		"[fd96::7]x":               "",
		"fd96::7]":                 "",
		"[10.96.0.7]":              "",
		"[fe80::1%25eth0]":         "",
		"[]":                       "",
		"*.shop":                   "",
		"*":                        "",
		"pass":                     "pass",
		"in|10.244.1.2:80":         "",
		"host|api.shop:80":         "",
		"any|80":                   "",
		"tcp|10.96.0.7:80":         "",
		"api.shop@6":               "",
		"user@api.shop":            "",
		"http://api.shop/":         "",
		"api.shop/":                "",
		"api.shop,api.bank":        "",
		"api shop":                 "",
		"b\u00fccher.example":      "",
		"\x00":                     "",
		"\xff":                     "",
		long + "a":                 "",
		strings.Repeat("a", 60000): "",
		strings.Repeat(".", 250):   "",
	} {
		if h, ok := parseHost(sent); h.name != want || ok != (want != "") {
			t.Errorf("%.300q: %.300q, %v", sent, h.name, ok)
		}
	}
	for sent, want := range map[string]bool{"10.96.0.7": true, "[fd96::7]": true, "10.96.0.007": false, "10.96.7": false, "10": false, "api": false} {
		if h, _ := parseHost(sent); h.addr.IsValid() != want {
			t.Errorf("%s is an address: %v", sent, h.addr)
		}
	}
}

func TestNamespaceOf(t *testing.T) {
	for id, want := range map[string]string{
		"spiffe://cluster.local/ns/shop/sa/web": "shop",
		"spiffe://a.b/ns/shop/sa/web/x":         "shop",
		"-":                                     "",
		"":                                      "",
		"spiffe://cluster.local/ns/shop":        "",
		"spiffe://cluster.local/shop/sa/web":    "",
		"spiffe://cluster.local":                "",
		"https://cluster.local/ns/shop/sa/web":  "",
	} {
		if got := namespaceOf(id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

// A canonical name is its own, is what Envoy compares but for the form of an address
// and a dot, and holds nothing that has a meaning in keys of scopes.
func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"api.shop", "API.shop.:80", "[fd96::7]:80", "a:b:c", "[", "]:", "in|1.2.3.4:5", "[::1%eth0]", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, ok := parseHost(s)
		if !ok {
			if h != (host{}) {
				t.Fatalf("%q: %+v", s, h)
			}
			return
		}
		again, ok := parseHost(h.name)
		if !ok || again.name != h.name || again.addr != h.addr {
			t.Fatalf("%q: %+v, then %+v %v", s, h, again, ok)
		}
		if again, ok := parseHost(h.sent); !ok || again != h {
			t.Fatalf("%q: %+v, then %+v %v", s, h, again, ok)
		}
		if len(h.name) > 253 || strings.ContainsAny(h.name, "|*@/, ") || h.name != strings.ToLower(h.name) {
			t.Fatalf("%q: %q", s, h.name)
		}
		if !strings.HasPrefix(h.name, "[") && h.name != strings.TrimSuffix(h.sent, ".") {
			t.Fatalf("%q: %q, compared %q", s, h.name, h.sent)
		}
	})
}
