// SPDX-License-Identifier: Apache-2.0

package trace

import "strings"

// normalPath is a request's path as the listeners' profile has it: dot segments
// resolved, slashes merged, unreserved characters unescaped. false: the request is
// answered with 400, because an escaped slash may be read in two ways.
func normalPath(p string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' {
			b.WriteByte('/')
			continue
		}
		if p[i] != '%' || i+2 >= len(p) {
			b.WriteByte(p[i])
			continue
		}
		c, ok := unhex(p[i+1], p[i+2])
		switch {
		case !ok:
			b.WriteByte('%')
			continue
		case c == '/' || c == '\\':
			return "", false
		case unreserved(c):
			b.WriteByte(c)
		default:
			b.WriteString("%" + strings.ToUpper(p[i+1:i+3]))
		}
		i += 2
	}
	trailing := false
	var out []string
	for _, seg := range strings.Split(strings.TrimPrefix(b.String(), "/"), "/") {
		trailing = false
		switch seg {
		case "":
			trailing = true
		case ".":
			trailing = true
		case "..":
			out, trailing = out[:max(0, len(out)-1)], true
		default:
			out = append(out, seg)
		}
	}
	n := "/" + strings.Join(out, "/")
	if trailing && n != "/" {
		n += "/"
	}
	return n, true
}

func unhex(a, b byte) (byte, bool) {
	digit := func(c byte) int { return strings.IndexByte("0123456789abcdef", c|0x20) }
	hi, lo := digit(a), digit(b)
	if '0' <= a && a <= '9' {
		hi = int(a - '0')
	}
	if '0' <= b && b <= '9' {
		lo = int(b - '0')
	}
	return byte(hi<<4 | lo), hi >= 0 && lo >= 0
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
