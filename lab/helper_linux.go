// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"io"
	"strings"

	"fairlead.io/fairlead/lab/dns"
	"fairlead.io/fairlead/lab/echo"
	"fairlead.io/fairlead/lab/load"
)

// Hidden commands of the program, by which a lab runs parts of it in its places.
const (
	echoCommand    = "lab-echo"
	loadCommand    = "lab-load"
	requestCommand = "lab-request"
	callCommand    = "lab-call"
	dnsCommand     = "lab-dns"
)

// Helper runs a hidden command of the lab and returns its exit code. handled is
// false if args are not one. The program calls it before it looks at its arguments
// itself.
func Helper(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int, handled bool) {
	if len(args) == 0 {
		return 0, false
	}
	var err error
	switch rest := args[1:]; args[0] {
	case initCommand:
		err = takePlace(rest)
	case echoCommand:
		err = echo.Main(ctx, rest, stderr)
	case dnsCommand:
		err = dns.Main(ctx, rest, stderr)
	case loadCommand:
		code = load.Main(ctx, rest, stdout, stderr)
	case requestCommand:
		code = load.RequestMain(ctx, stdin, stdout, stderr)
	case callCommand:
		code = load.CallMain(ctx, rest, stdout, stderr)
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintf(stderr, "fairlead %s: %v\n", args[0], err)
		code = max(code, 1)
	}
	return code, true
}

// shellQuote makes a word that a shell takes as it is.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
