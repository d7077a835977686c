// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"strings"
	"testing"
)

// The node's range gets the proxy's ports, and loses none of its own.
func TestWidened(t *testing.T) {
	for now, want := range map[string]string{
		"32768\t60999": "32768\t65535", "1024\t60999": "1024\t65535", "1024\t65535": "1024\t65535",
		"62000\t65535": "32768\t65535", "": "32768\t65535",
	} {
		if got := widened(now); got != want {
			t.Errorf("%q becomes %q, want %q", now, got, want)
		}
	}
}

func TestReservedPorts(t *testing.T) {
	for list, want := range map[string]struct {
		level  Level
		detail string
	}{
		"":                        {Fine, "none of the proxy's"},
		"22,30000-32767,8080":     {Fine, "none of the proxy's"},
		"61000":                   {Warning, "1 of 1400 for connections whose policy was judged"},
		"60000-62399":             {Problem, "1400 of 1400 for connections whose policy was judged"},
		"62400-62401,63000,65535": {Warning, "3 of 864 for connections that the destination's inbound listener judges, 1 of 2272 for connections whose policy was not"},
		"32768-65535":             {Problem, "2272 of 2272"},
	} {
		f := reservedPorts(list)
		if f.Level != want.level || !strings.Contains(f.Detail, want.detail) || (f.Level == Fine) != (f.Advice == "") {
			t.Errorf("%q: %+v, want %s, %s", list, f, want.level, want.detail)
		}
	}
}
