// SPDX-License-Identifier: Apache-2.0

package hubble

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func TestFilter(t *testing.T) {
	flow := Flow{Verdict: "denied", Protocol: "TCP", Service: "shop/web:80", Source: Peer{Pod: "bank/teller-1"},
		Destination: Peer{Pod: "shop/web-v1-1"}, HTTP: &HTTP{Status: 403}}
	for filter, want := range map[string]bool{
		"":                      true,
		"namespace=shop":        true,
		"namespace=bank":        true,
		"namespace=ban":         false,
		"namespace=s":           false,
		"pod=teller":            true,
		"pod=other":             false,
		"service=shop/web":      true,
		"service=web:81":        false,
		"protocol=http":         true,
		"protocol=tcp":          true,
		"protocol=UDP":          false,
		"status=403":            true,
		"status=4xx":            true,
		"status=404":            false,
		"status=200,400-410":    true,
		"status=5xx":            false,
		"verdict=denied":        true,
		"verdict=forwarded":     false,
		"namespace=shop&pod=xx": false,
		"namespace=shop&status=4XX&verdict=denied&protocol=HTTP": true,
	} {
		v, err := url.ParseQuery(filter)
		if err != nil {
			t.Fatal(err)
		}
		f, err := FilterOf(v)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		if got := f.Wants(flow); got != want {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
		if !f.Wants(Flow{Verdict: Lost, Lost: 3}) {
			t.Errorf("%s: it hides that flows were lost", filter)
		}
		again, err := FilterOf(f.Values())
		if err != nil || !reflect.DeepEqual(again, f) {
			t.Errorf("%s: written and read: %+v, %v", filter, again, err)
		}
	}
	if f, _ := FilterOf(url.Values{"status": {"5xx"}}); f.Wants(Flow{Verdict: "forwarded", Protocol: "TCP"}) {
		t.Error("a status takes what has none")
	}
}

func TestFilterRefuses(t *testing.T) {
	for filter, want := range map[string]string{
		"verdict=no":     "verdict no: want one of forwarded",
		"verdict=lost":   "verdict lost: want one of forwarded",
		"protocol=quic":  "protocol quic: want one of TCP",
		"status=ok":      "status ok: want codes (404), classes (5xx) or ranges (400-417)",
		"status=50-60":   "want codes",
		"status=6xx":     "want codes",
		"status=500-400": "want codes",
		"status=200,":    "want codes",
	} {
		v, err := url.ParseQuery(filter)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := FilterOf(v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %s", filter, f, err, want)
		}
	}
}
