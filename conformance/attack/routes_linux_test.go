// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// ways are requests to services of the attacker's own, whose routes lead to the site; see
// testdata/lair.yaml. MARK is as in requests.
var ways = []struct{ service, path string }{
	{"lair-mirror", "/private/MARK"},
	{"lair-mirror", "/public/../private/MARK"},
	{"lair-rewrite", "/public/plain/MARK"},
	{"lair-rewrite", "/public/dots/MARK"},
	{"lair-rewrite", "/public/encoded/MARK"},
	{"lair-rewrite", "/public/slashes/MARK"},
	{"lair-rewrite", "/public/back/MARK"},
	{"lair-rewrite", "/public/escaped/MARK"},
	{"lair-rewrite", "/public/regex/up/MARK"},
	{"lair-rewrite", "/public/captured/.a./MARK"},
	{"lair-rewrite", "/public/parameter/MARK"},
	{"lair-rewrite", "/public/fragment/MARK"},
	{"lair-rewrite", "/public/joined./private/MARK"},
	{"lair-rewrite", "/public/authority/MARK"},
	{"lair-headers", "/public/MARK"},
	{"lair-redirect", "/public/MARK"},
	{"lair-delegate", "/public/MARK"},
	{"site", "/public/taken/MARK"},
}

// TestRoutes: an attacker writes routes for services of his own, or for the site, that have what
// he may not ask for asked for in his stead. The site's policy is judged for him, on what the
// site would get.
func TestRoutes(t *testing.T) {
	r := attacked(t)
	r.serveSite(t)
	for _, attacker := range []string{"attacker-1", "attacker-2"} {
		for six := range 2 {
			before := len(call[[][]byte](t, r.hands["site"], "Seen", None{}))
			ask := func(service, path string) string {
				if len(r.services[service]) == 0 {
					t.Fatalf("service %s has no address", service)
				}
				to := r.services[service][min(six, len(r.services[service])-1)]
				text := strings.ReplaceAll(get(path), "Host: site", "Host: "+service)
				return answered(call[[]byte](t, r.hands[attacker], "Say", Raw{To: at(to, 80).String(), Bytes: []byte(text), Wait: 20 * time.Millisecond}))
			}
			control := fmt.Sprintf("control-%s-%d", attacker, six)
			said := ask("lair-rewrite", "/control/"+control)
			if seen := call[[][]byte](t, r.hands["site"], "Seen", None{}); !bytes.Contains(bytes.Join(seen, nil), []byte("GET /public/"+control)) {
				t.Fatalf("by %s: what is allowed does not arrive: %s", attacker, said)
			}
			for i, way := range ways {
				said := ask(way.service, strings.ReplaceAll(way.path, "MARK", fmt.Sprintf("r%03d", i)))
				t.Logf("by %s, %s%s: %s", attacker, way.service, way.path, said)
			}
			time.Sleep(200 * time.Millisecond) // copies are sent beside
			for _, stream := range call[[][]byte](t, r.hands["site"], "Seen", None{})[before:] {
				for _, why := range judge(stream) {
					t.Errorf("by %s: the site sees %s", attacker, why)
				}
			}
		}
	}
}
