// SPDX-License-Identifier: Apache-2.0

package live

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"fairlead.io/fairlead/lab/echo"
	"fairlead.io/fairlead/lab/load"
)

// outcome is the word or number for what a request came to, as Want.Status says it.
func outcome(r load.Result) string {
	switch {
	case r.Error != "":
		return r.Error
	case r.GRPC != nil:
		return grpcNames[codes.Code(*r.GRPC)]
	}
	return strconv.Itoa(r.Status)
}

// grpcNames are the names of gRPC's own specification.
var grpcNames = map[codes.Code]string{codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.NotFound: "NOT_FOUND", codes.AlreadyExists: "ALREADY_EXISTS", codes.PermissionDenied: "PERMISSION_DENIED",
	codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.OutOfRange: "OUT_OF_RANGE",
	codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL", codes.Unavailable: "UNAVAILABLE", codes.DataLoss: "DATA_LOSS", codes.Unauthenticated: "UNAUTHENTICATED"}

// answer is the echo server's answer, empty if there is none.
func answer(r load.Result) echo.Answer {
	if r.Answer == nil {
		return echo.Answer{}
	}
	return *r.Answer
}

func describe(r load.Result) string {
	s := outcome(r)
	for _, p := range []string{answer(r).Pod, answer(r).Path, r.Detail, strings.TrimSpace(r.Body)} {
		if p != "" {
			s += " " + p
		}
	}
	return s
}

// chance is how improbable a share must be to be wrong, on either side.
const chance = 1e-6

// Judge compares results with what is wanted. self are the addresses of the source.
func (w Want) Judge(results []load.Result, self []string) error {
	wrong := map[string]int{}
	var order []string
	say := func(format string, a ...any) {
		text := fmt.Sprintf(format, a...)
		if wrong[text]++; wrong[text] == 1 {
			order = append(order, text)
		}
	}
	pods := map[string]bool{}
	for _, r := range results {
		if !w.status(r) {
			say("got %s, want %s", describe(r), w.Status)
			continue
		}
		pods[answer(r).Pod] = true
		for _, f := range w.Fields {
			if f.Name == "pods" || f.ofFlows() {
				continue // of all results, and of flows
			}
			if got := f.of(r); !f.holds(got, self) {
				say("%s is %q, want %s%s%s", f.Name, got, f.Name, f.Op, f.Value)
			}
		}
		if len(w.Shares) > 0 && !slices.ContainsFunc(w.Shares, func(s Share) bool { return s.answered(r) }) {
			say("answered by %s", cmp.Or(answer(r).Pod, "nobody"))
		}
	}
	if len(order) == 0 {
		for _, s := range w.Shares {
			n := 0
			for _, r := range results {
				if s.answered(r) {
					n++
				}
			}
			if s.Percent > 0 && improbable(n, len(results), s.Percent/100) {
				say("%s answered %d of %d, want %g%%", s.Name, n, len(results), s.Percent)
			}
		}
		for _, f := range w.Fields {
			if f.Name == "pods" && !f.holds(strconv.Itoa(len(pods)), nil) {
				say("%d pods answered, want pods%s%s", len(pods), f.Op, f.Value)
			}
		}
	}
	var errs []error
	for _, text := range order {
		if n := wrong[text]; n > 1 {
			text = fmt.Sprintf("%s (%d times)", text, n)
		}
		if errs = append(errs, errors.New(text)); len(errs) == 5 {
			break
		}
	}
	return errors.Join(errs...)
}

var statusRange = regexp.MustCompile(`^(\d{3})-(\d{3})$`)

func (w Want) status(r load.Result) bool {
	got := outcome(r)
	for want := range strings.SplitSeq(w.Status, "|") {
		m := statusRange.FindStringSubmatch(want)
		class, isClass := strings.CutSuffix(want, "xx")
		switch {
		case want == got, want == "failed" && r.Error != "":
			return true
		case r.Error != "" || r.GRPC != nil:
		case m != nil && m[1] <= got && got <= m[2], isClass && strings.HasPrefix(got, class), want == "ok" && got == "200":
			return true
		}
	}
	return false
}

// answered reports whether the share's pod, workload or version answered.
func (s Share) answered(r load.Result) bool {
	a := answer(r)
	return a.Pod != "" && slices.Contains([]string{a.Pod, a.Deployment, a.Labels["version"]}, s.Name)
}

// ofFlows reports whether the field is about the flows that a request leaves.
func (f Field) ofFlows() bool { return f.Name == "by" || f.Name == "led" }

// of is the field's value in a result.
func (f Field) of(r load.Result) string {
	kind, name, _ := strings.Cut(f.Name, ".")
	a := answer(r)
	switch kind {
	case "header":
		return strings.Join(a.Headers[strings.ToLower(name)], ",")
	case "answer":
		return strings.Join(r.Headers[strings.ToLower(name)], ",")
	case "path":
		return a.Path
	case "host":
		return a.Authority
	case "method":
		return a.Method
	case "body":
		return cmp.Or(a.Body, strings.TrimSpace(r.Body))
	case "node":
		return a.Node
	case "protocol":
		return a.Protocol
	case "account":
		return a.ServiceAccount
	case "count":
		return count(r)
	case "took":
		return time.Duration(r.Millis * float64(time.Millisecond)).Round(time.Millisecond).String()
	case "peer":
		return host(a.Peer)
	case "local":
		return host(a.Local)
	}
	return ""
}

// count is what the echo server's answer or its /count tells.
func count(r load.Result) string {
	if r.Answer != nil {
		return strconv.FormatUint(r.Answer.Count, 10)
	}
	var c echo.Count
	if json.Unmarshal([]byte(r.Body), &c) != nil {
		return ""
	}
	return strconv.FormatUint(c.Count, 10)
}

func host(hostPort string) string {
	h, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return hostPort
	}
	return h
}

// holds compares a value; numbers and durations may be compared by size.
func (f Field) holds(got string, self []string) bool {
	switch {
	case f.Op == "=" && f.Value == "self":
		return slices.Contains(self, got)
	case f.Op == "=":
		return got == f.Value
	case f.Op == "~":
		re, err := regexp.Compile(f.Value)
		return err == nil && re.MatchString(got)
	}
	a, okA := number(got)
	b, okB := number(f.Value)
	return okA && okB && (f.Op == "<" && a < b || f.Op == ">" && a > b)
}

func number(s string) (float64, bool) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return n, true
	}
	d, err := time.ParseDuration(s)
	return d.Seconds(), err == nil
}

// improbable reports whether k of n falls outside what a share p gives but once in a
// million.
func improbable(k, n int, p float64) bool {
	if p >= 1 {
		return k != n
	}
	below, above := 0.0, 0.0 // P(X <= k), P(X >= k)
	for i := range n + 1 {
		x := math.Exp(choose(n, i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
		if i <= k {
			below += x
		}
		if i >= k {
			above += x
		}
	}
	return below < chance/2 || above < chance/2
}

// choose is the logarithm of the number of ways to choose k of n.
func choose(n, k int) float64 {
	l := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return l(n) - l(k) - l(n-k)
}
