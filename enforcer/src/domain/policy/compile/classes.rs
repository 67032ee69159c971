//! Identity classes: identities of which all questions have the same answers share a class.

use std::collections::HashMap;

use enforcer_common::id::IdentityId;
use enforcer_common::limits::{SUBJECT_CLASSES, TABLE_ROWS};

use super::people::People;
use super::questions::{QuestionId, Questions};
use super::wards::Wards;
use crate::domain::table::CompileError;

/// Reserved identities that are somebody. Each has a class of its own, whatever the policies say.
const RESERVED: [IdentityId; 4] =
    [IdentityId::HOST, IdentityId::WORLD, IdentityId::UNMANAGED, IdentityId::CANARY];

/// Classes of all identities.
#[derive(Debug)]
pub(super) struct IdentityClasses {
    /// Class by identity number.
    numbers: Vec<u32>,
    /// Classes by question.
    of_question: Vec<Vec<u32>>,
    /// Classes by the questions that are answered with yes.
    by_answers: HashMap<Box<[u32]>, u32>,
    next: u32,
}

impl IdentityClasses {
    pub(super) fn new(
        people: &People<'_>,
        questions: &Questions<'_>,
        wards: &Wards<'_>,
        last: IdentityId,
    ) -> Result<Self, CompileError> {
        // Before anything of that size is made.
        CompileError::check("identities", u64::from(last.0) + 1, u64::from(TABLE_ROWS) * 16)?;
        let mut matched: Vec<Vec<u32>> = vec![Vec::new(); people.list.len()];
        for (question, number) in questions.list().iter().zip(0..) {
            for person in people.answer(question, questions, wards) {
                matched[person].push(number);
            }
        }
        let mut numbers = vec![0; last.0 as usize + 1];
        let mut next = 1;
        for reserved in RESERVED {
            numbers[reserved.0 as usize] = next;
            next += 1;
        }
        let mut by_answers: HashMap<Box<[u32]>, u32> = HashMap::new();
        let mut of_question: Vec<Vec<u32>> = vec![Vec::new(); questions.list().len()];
        for ((id, _), matched) in people.list.iter().zip(matched) {
            let known = by_answers.get(matched.as_slice()).copied();
            numbers[id.0 as usize] = known.unwrap_or_else(|| {
                for question in &matched {
                    of_question[*question as usize].push(next);
                }
                by_answers.insert(matched.into_boxed_slice(), next);
                next += 1;
                next - 1
            });
        }
        CompileError::check("subject classes", u64::from(next - 1), SUBJECT_CLASSES.into())?;
        Ok(Self { numbers, of_question, by_answers, next })
    }

    /// Takes the classes by the questions that are answered with yes.
    pub(super) fn take_answers(&mut self) -> HashMap<Box<[u32]>, u32> {
        std::mem::take(&mut self.by_answers)
    }

    /// The class of an identity.
    pub(super) fn of(&self, id: IdentityId) -> u32 {
        self.numbers.get(id.0 as usize).copied().unwrap_or(0)
    }

    /// Gives an identity that no question is asked of a class of its own.
    pub(super) fn set(&mut self, id: IdentityId, class: u32) {
        if let Some(place) = self.numbers.get_mut(id.0 as usize) {
            *place = class;
        }
    }

    /// Takes so many numbers of classes for those of whom no question is asked, and returns the first.
    pub(super) fn reserve(&mut self, count: usize) -> Result<u32, CompileError> {
        let first = self.next;
        CompileError::check("subject classes", u64::from(first) + count as u64, SUBJECT_CLASSES.into())?;
        self.next += u32::try_from(count).unwrap_or(u32::MAX);
        Ok(first)
    }

    /// Classes of which the answer is yes.
    pub(super) fn asked(&self, question: QuestionId) -> &[u32] {
        self.of_question.get(question.0).map_or(&[], Vec::as_slice)
    }

    /// The first number that is not a class of identities.
    pub(super) fn next_class(&self) -> u32 {
        self.next
    }

    pub(super) fn into_numbers(self) -> Vec<u32> {
        self.numbers
    }
}
