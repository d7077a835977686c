// SPDX-License-Identifier: Apache-2.0

package render

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// maxTemplate is how many bytes of a path template Envoy takes.
const maxTemplate = 256

// templateText is what may stand between the slashes of a path template.
var templateText = regexp.MustCompile("^[A-Za-z0-9._~%!$&'()+,;:@=-]+$")

// pathTemplate gives a path with the wildcards {*}, a segment, and {**}, all that
// follows, as Envoy writes it. It is strict: Envoy 1.40 does not reject a template
// that breaks its rules, it aborts.
func pathTemplate(s string) (string, error) {
	fail := func(why string) (string, error) { return "", fmt.Errorf("path template %q: %w", s, errors.New(why)) }
	if len(s) > maxTemplate {
		return fail("longer than 256 bytes")
	}
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return fail("does not begin with a slash")
	}
	open := false
	segments := strings.Split(rest, "/")
	for i, seg := range segments {
		switch {
		case seg == "{*}" || seg == "{**}":
			if open {
				return fail("a wildcard after {**}")
			}
			open = seg == "{**}"
			segments[i] = strings.Trim(seg, "{}")
		case strings.ContainsAny(seg, "{}*"):
			return fail("braces or * in a segment that is not {*} or {**} alone")
		case seg == "" && i < len(segments)-1:
			return fail("an empty segment")
		case seg != "" && !templateText.MatchString(seg):
			return fail("a character that a path cannot have as it stands")
		}
	}
	return "/" + strings.Join(segments, "/"), nil
}
