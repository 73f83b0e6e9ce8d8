//! One suite for every store: what is kept, for whom, and what is left when somebody is killed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crash;
mod journal;
mod model;
mod outage;
mod place;
mod postgres;
mod records;
mod sessions;
mod sqlite;
mod tls;

/// Runs each case on SQLite and on PostgreSQL.
macro_rules! on_both {
    ($($module:ident: $($case:ident),+;)+) => {
        mod on_sqlite {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    crate::$module::$case(&crate::place::Place::sqlite()).await;
                })+
            })+
        }
        mod on_postgres {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    if let Some(place) = crate::place::Place::postgres().await {
                        crate::$module::$case(&place).await;
                    }
                })+
            })+
        }
    };
}

on_both! {
    sessions:
        created_once, everything_comes_back, listed_and_paged, found_by_either_name, unfinished, figures, deleted_with_everything;
    journal:
        numbers_follow_each_other, new_owner_fences_old, numbered_commits_are_kept_once, all_of_a_commit_or_nothing, deltas_are_compacted,
        transcripts_in_order, hostile_text, large_events_end_an_answer, many_sessions_at_once, usable_and_closed;
    model: as_a_model_says;
    crash: nothing_acknowledged_is_lost;
}
