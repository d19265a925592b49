// Rulecheck reads alerts, cases of theirs and a Grafana dashboard with Prometheus' own code: what is wrong with an
// expression, and whether each alert fires where a case says so, and nowhere else.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"go.yaml.in/yaml/v3"
)

// A testCase is what is scraped once a minute from time 0 on, in promtool's notation, and what fires at the end.
type testCase struct {
	Name   string   `yaml:"name"`
	Series []string `yaml:"series"`
	At     string   `yaml:"at"`
	Fires  []string `yaml:"fires"`
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: rulecheck RULES CASES DASHBOARD")
		os.Exit(2)
	}
	expressions := parser.NewParser(parser.Options{})
	told, err := check(os.Args[1], os.Args[2], expressions)
	drawn, wrong := draw(os.Args[3], expressions)
	told += fmt.Sprintf(", %d expressions of a dashboard", drawn)
	if err = errors.Join(err, wrong); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(told)
}

func check(rulesPath, casesPath string, expressions parser.Parser) (string, error) {
	silent := slog.New(slog.NewTextHandler(io.Discard, nil))
	groups, wrong := rulefmt.ParseFile(rulesPath, false, model.UTF8Validation, expressions, silent)
	if len(wrong) > 0 {
		return "", errors.Join(wrong...)
	}
	var rules []rulefmt.Rule
	for _, group := range groups.Groups {
		rules = append(rules, group.Rules...)
	}
	cases, err := read(casesPath)
	if err != nil {
		return "", err
	}
	unseen := map[string]bool{}
	for _, rule := range rules {
		unseen[rule.Alert] = true
	}
	for _, one := range cases {
		fired, err := run(one, rules)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", one.Name, err))
		} else if told, expected := strings.Join(fired, " "), strings.Join(one.Fires, " "); told != expected {
			wrong = append(wrong, fmt.Errorf("%s: fires [%s], expected [%s]", one.Name, told, expected))
		}
		for _, alert := range fired {
			delete(unseen, alert)
		}
	}
	for alert := range unseen {
		wrong = append(wrong, fmt.Errorf("%s: fires in no case", alert))
	}
	return fmt.Sprintf("%d alerts, %d cases", len(rules), len(cases)), errors.Join(wrong...)
}

func read(path string) (cases []testCase, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	return cases, decoder.Decode(&cases)
}

// run returns the alerts that fire, in the order of the rules.
func run(one testCase, rules []rulefmt.Rule) (fired []string, err error) {
	at, err := model.ParseDuration(one.At)
	if err != nil {
		return nil, err
	}
	input := "load 1m\n  " + strings.Join(one.Series, "\n  ") + "\n"
	loaded, err := promqltest.NewLazyLoader(input, promqltest.LazyLoaderOpts{})
	if err != nil {
		return nil, err
	}
	defer loaded.Close()
	loaded.WithSamplesTill(time.Unix(0, 0).Add(time.Duration(at)), func(failed error) { err = failed })
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		holds, err := pending(loaded, rule, time.Duration(at))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rule.Alert, err)
		}
		if holds {
			fired = append(fired, rule.Alert)
		}
	}
	return fired, nil
}

// pending tells whether the expression has held each minute for as long as the rule's `for`. One of several series is
// enough: a case has one that matters.
func pending(loaded *promqltest.LazyLoader, rule rulefmt.Rule, at time.Duration) (bool, error) {
	for moment := at - time.Duration(rule.For); moment <= at; moment += time.Minute {
		if moment < 0 {
			return false, nil
		}
		query, err := loaded.QueryEngine().NewInstantQuery(
			context.Background(), loaded.Queryable(), nil, rule.Expr, time.Unix(0, 0).Add(moment))
		if err != nil {
			return false, err
		}
		result := query.Exec(context.Background())
		found, err := result.Vector()
		query.Close()
		if err != nil || len(found) == 0 {
			return false, err
		}
	}
	return true, nil
}

// draw returns how many expressions a dashboard has; Grafana's interval is five minutes here.
func draw(path string, expressions parser.Parser) (count int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	var wrong []error
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			count++
			if _, err := expressions.ParseExpr(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %s: %w", path, panel.Title, err))
			}
		}
	}
	return count, errors.Join(wrong...)
}
