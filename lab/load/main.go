// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Exit codes of the programs.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Main is the load generator as a program. It prints a Summary as a line of JSON
// every second and one with final set at the end. Without arguments it does
// nothing until the context ends: a pod to send from. The exit code is 0 if there
// was neither a failure nor a violation.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		<-ctx.Done()
		return exitOK
	}
	var o Options
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Func("url", "`URL` to ask; repeat for more, which are asked at random", func(v string) error {
		o.URLs = append(o.URLs, v)
		return nil
	})
	fs.Float64Var(&o.Rate, "rate", 100, "requests per second in all; 0: as fast as the connections go")
	fs.DurationVar(&o.Duration, "duration", 0, "how long; 0: until a signal")
	fs.IntVar(&o.Connections, "connections", 8, "connections that are kept alive")
	fs.Float64Var(&o.Fresh, "fresh", 0, "share of requests, 0 to 1, with a connection of their own")
	four, six := family(fs, "4", "IPv4"), family(fs, "6", "IPv6")
	fs.DurationVar(&o.Timeout, "timeout", 0, "of one request (default 5s)")
	fs.IntVar(&o.Expect, "expect", 200, "status that is a success")
	fs.BoolVar(&o.Forbid, "forbid", false, "every request is forbidden: an answer of 2xx is a violation")
	fs.StringVar(&o.Method, "method", "GET", "method")
	fs.StringVar(&o.Host, "host", "", "authority, in place of the URL's")
	fs.Func("header", "`NAME:VALUE` to send; repeat for more", func(v string) error {
		return addHeader(&o.Headers, v)
	})
	if code, done := parse(fs, args, stderr); done {
		return code
	}
	o.Families = chosen(*four, *six)
	enc := json.NewEncoder(stdout)
	sum, err := Run(ctx, o, func(s Summary) { _ = enc.Encode(s) }) // nobody reads: the final one fails too
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return exitUsage
	}
	sum.Final = true
	if err := enc.Encode(sum); err != nil {
		fmt.Fprintln(stderr, "load: print summary:", err)
		return exitFailed
	}
	if sum.Failed > 0 || sum.Violations > 0 {
		return exitFailed
	}
	return exitOK
}

func family(fs *flag.FlagSet, name, what string) *bool {
	return fs.Bool(name, false, "dial "+what+"; with both families, connections take turns")
}

func chosen(four, six bool) []string {
	var out []string
	if four {
		out = append(out, "4")
	}
	if six {
		out = append(out, "6")
	}
	return out
}

func addHeader(headers *map[string]string, v string) error {
	name, value, found := strings.Cut(v, ":")
	if !found || name == "" {
		return errors.New("want NAME:VALUE")
	}
	if *headers == nil {
		*headers = map[string]string{}
	}
	(*headers)[name] = strings.TrimSpace(value)
	return nil
}

// parse reads flags; done if the program is to end with the code.
func parse(fs *flag.FlagSet, args []string, stderr io.Writer) (code int, done bool) {
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK, true
	case err != nil:
		return exitUsage, true // the flag set has said why
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "%s: unexpected argument %q\n", fs.Name(), fs.Arg(0))
		return exitUsage, true
	}
	return 0, false
}
